# What modules are told on the kernel command line and in modprobe.d.
{ lib }:
rec {
  # Names of modules and of parameters are the same with `-` and with `_`.
  sameName = lib.replaceStrings [ "-" ] [ "_" ];

  # A word of the command line: `value` is null where there is no `=`.
  parameter =
    word:
    let
      text = lib.replaceStrings [ "\"" ] [ "" ] word;
      parts = lib.splitString "=" text;
    in
    {
      inherit text;
      name = sameName (lib.head parts);
      value = if lib.tail parts == [ ] then null else lib.concatStringsSep "=" (lib.tail parts);
    };

  # The lines of a file in modprobe.d that name a module.
  lines =
    text:
    let
      # A line goes on behind a backslash.
      joined = lib.replaceStrings [ "\\\n" "\t" ] [ "" " " ] text;
      words = line: lib.filter (word: word != "") (lib.splitString " " line);
      isCommand = line: lib.length line >= 2 && !lib.hasPrefix "#" (lib.head line);
    in
    map (line: {
      text = lib.concatStringsSep " " line;
      command = lib.head line;
      module = sameName (lib.elemAt line 1);
      arguments = lib.drop 2 line;
    }) (lib.filter isCommand (map words (lib.splitString "\n" joined)));

  # A message, whose text has lines for who reads the source.
  oneLine = text: lib.replaceStrings [ "\n" ] [ " " ] (lib.removeSuffix "\n" text);

  # Unlike lib.hasInfix it takes texts of any length.
  contains = part: text: lib.replaceStrings [ part ] [ "" ] text != text;
}
