# The items of `vfio.devs=`: the grammar of src/pci.rs, for evaluation time.
{ lib }:
let
  hex = "[0-9a-fA-F]";
  id = "${hex}{1,4}:${hex}{1,4}(:${hex}{1,4}:${hex}{1,4})?";
  device = "[01]?${hex}";
  function = "0?[0-7]";
  # Only the last function of a path can be `*`.
  place = "(${hex}{1,8}:)?${hex}{1,2}:(${device}\\.${function}/)*${device}\\.(${function}|\\*)";
  # An id of zeros alone would take every device.
  isId = text: builtins.match id text != null && builtins.match "[0:]*" text == null;

  # The parts of an item: `kind` is "id", "group" or "place".
  parts =
    text:
    let
      isGroup = lib.hasPrefix "group:" text;
      rest = lib.removePrefix "group:" text;
      guarded = builtins.match "([^@]*)@(.*)" rest;
    in
    if lib.hasPrefix "pci:" text then
      {
        kind = "id";
        id = lib.removePrefix "pci:" text;
        place = null;
      }
    else
      {
        kind = if isGroup then "group" else "place";
        id = if guarded == null then null else builtins.elemAt guarded 0;
        place = if guarded == null then rest else builtins.elemAt guarded 1;
      };

  # A number in its shortest form, so that 0000 and 0, AF and af are the same.
  shortest =
    number:
    let
      digits = builtins.match "0*([0-9a-f]+)" (lib.toLower number);
    in
    if digits == null then number else builtins.elemAt digits 0;
  numbers =
    text:
    lib.concatMapStrings (n: if lib.isList n then lib.head n else shortest n) (
      builtins.split "([:./])" text
    );

  forms = "an address (0000:01:00.0), a slot (01:00.*), a path (00:01.0/00.0), an id (pci:10de:1c03) or a group (group:01:00.0); addresses, slots and paths can have a guard in front (10de:1c03@01:00.0)";
in
rec {
  isItem =
    text:
    let
      item = parts text;
    in
    (item.id == null || isId item.id)
    && (item.place == null || builtins.match place item.place != null);

  # The type of one item.
  type = lib.mkOptionType {
    name = "vfioItem";
    description = "item of vfio.devs=, which is ${forms}";
    descriptionClass = "noun";
    check = value: lib.isString value && isItem value;
    merge = lib.mergeEqualOption;
  };

  # The same text for all ways to write what chooses the same devices; guards do not choose.
  key =
    text:
    let
      item = parts text;
      short = numbers (if item.place == null then item.id else item.place);
      colons = lib.length (lib.splitString ":" short) - 1;
    in
    "${item.kind} "
    + (
      if item.kind == "id" then
        short + lib.optionalString (colons == 1) ":0:0"
      else
        lib.optionalString (colons == 1) "0:" + short
    );

  # "VENDOR:DEVICE" of the device, as far as the item says it; else null.
  vendorAndDevice =
    text:
    let
      item = parts text;
    in
    if item.id == null then null else vendorAndDeviceOf item.id;

  # The same of an id as in `vfio-pci.ids=`.
  vendorAndDeviceOf = id: numbers (lib.concatStringsSep ":" (lib.take 2 (lib.splitString ":" id)));
}
