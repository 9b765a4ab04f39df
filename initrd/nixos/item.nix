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

  # A number of virtual functions: 1 to 65535.
  isCount = text: builtins.match "0*[1-9][0-9]{0,4}" text != null && lib.toIntBase10 text <= 65535;

  # The parts of an item: `kind` is "id", "group", "virtual" or "place"; `count` is that of virtual functions,
  # or null.
  parts =
    text:
    let
      isGroup = lib.hasPrefix "group:" text;
      isVirtual = lib.hasPrefix "vfs:" text;
      counted = if isVirtual then builtins.match "vfs:([^=]*)=(.*)" text else null;
      rest =
        if counted != null then
          lib.head counted
        else if isVirtual then
          lib.removePrefix "vfs:" text
        else
          lib.removePrefix "group:" text;
      guarded = builtins.match "([^@]*)@(.*)" rest;
    in
    if lib.hasPrefix "pci:" text then
      {
        kind = "id";
        id = lib.removePrefix "pci:" text;
        place = null;
        count = null;
      }
    else
      {
        kind =
          if isGroup then
            "group"
          else if isVirtual then
            "virtual"
          else
            "place";
        count = if counted == null then null else lib.last counted;
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

  # What a text chooses, with its numbers in their shortest form, and what stands between them.
  choice =
    text:
    let
      item = parts text;
      place = if item.place == null then item.id else item.place;
      colons = lib.length (lib.splitString ":" place) - 1;
      whole =
        if item.kind == "id" then
          place + lib.optionalString (colons == 1) ":0:0"
        else
          lib.optionalString (colons == 1) "0:" + place;
      words = builtins.split "([:./])" whole;
    in
    {
      inherit (item) kind;
      numbers = map shortest (lib.filter lib.isString words);
      between = lib.concatMap (word: if lib.isList word then word else [ ]) words;
      any = if item.kind == "id" then "0" else "*";
    };

  forms = "an address (0000:01:00.0), a slot (01:00.*), a path (00:01.0/00.0), an id (pci:10de:1c03), a group (group:01:00.0) or virtual functions (vfs:03:00.0, vfs:03:00.0=4); addresses, slots and paths can have a guard in front (10de:1c03@01:00.0)";
in
rec {
  isItem =
    text:
    let
      item = parts text;
    in
    (item.id == null || isId item.id)
    && (item.place == null || builtins.match place item.place != null)
    && (item.kind != "virtual" || !lib.hasSuffix "*" item.place)
    && (item.count == null || isCount item.count);

  # The type of one item.
  type = lib.mkOptionType {
    name = "vfioItem";
    description = "item of vfio.devs=, which is ${forms}";
    descriptionClass = "noun";
    check = value: lib.isString value && isItem value;
    merge = lib.mergeEqualOption;
  };

  # Whether two items choose a device in common, as far as their texts tell; guards do not choose.
  overlap =
    one: other:
    let
      a = choice one;
      b = choice other;
      isCommon = pair: pair.fst == pair.snd || pair.fst == a.any || pair.snd == a.any;
    in
    a.kind == b.kind && a.between == b.between && lib.all isCommon (lib.zipLists a.numbers b.numbers);

  # The vendor of what an item chooses, as far as it says it; else null.
  vendor =
    text:
    let
      item = parts text;
      number = shortest (lib.head (lib.splitString ":" item.id));
    in
    if item.id == null || number == "0" then null else number;
}
