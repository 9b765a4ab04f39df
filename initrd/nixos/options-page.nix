# The options as a page of Markdown.
{ lib, options }:
let
  documented = lib.filter (option: option.visible && !option.internal) (
    lib.optionAttrSetToDocList options.boot.initrd.vfio-early
  );
  # The roles of nixpkgs' manual.
  plain = lib.replaceStrings [ "{option}" "{command}" "{file}" ] [ "" "" "" ];
  value =
    name: value:
    let
      text = lib.removeSuffix "\n" value.text;
    in
    if value._type == "literalMD" then
      "${name}: ${text}\n"
    else if lib.hasInfix "\n" text then
      "${name}:\n\n```nix\n${text}\n```\n"
    else
      "${name}: `${text}`\n";
  section = option: ''
    ## `${option.name}`

    ${plain (lib.removeSuffix "\n" option.description)}

    Type: ${option.type}

    ${lib.concatStringsSep "\n" (
      lib.optional (option ? default) (value "Default" option.default)
      ++ lib.optional (option ? example) (value "Example" option.example)
    )}'';
in
''
  # Options of the NixOS module

  Made from initrd/nixos/module.nix by `cargo xtask nix --write`. How to use them is in
  [nixos.md](nixos.md).

  ${lib.concatMapStringsSep "\n" section documented}''
