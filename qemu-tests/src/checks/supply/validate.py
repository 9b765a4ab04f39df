"""Prints what is wrong with a CycloneDX file by the schema of its version, one line each.

validate.py FOLDER_OF_SCHEMAS VERSION FILE
"""

import json
import pathlib
import sys

import jsonschema

folder, version, file = sys.argv[1:]


def read(path):
    return json.loads(pathlib.Path(path).read_text())


schemas = {path.name: read(path) for path in pathlib.Path(folder).glob("*.schema.json")}
schema = schemas[f"bom-{version}.SNAPSHOT.schema.json"]
# They refer to one another by the names of their files, from the first one's address.
base = schema["$id"].rsplit("/", 1)[0]
store = {f"{base}/{name}": each for name, each in schemas.items()}
resolver = jsonschema.RefResolver.from_schema(schema, store=store)
validator = jsonschema.Draft7Validator(schema, resolver=resolver)
for error in validator.iter_errors(read(file)):
    place = "/".join(str(part) for part in error.absolute_path)
    print(f"{place}: {error.message}"[:300].replace("\n", " "))
