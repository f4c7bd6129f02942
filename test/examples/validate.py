"""Validates manifests by the schemas of those who read them, and prints them as JSON.

usage: validate.py FILE…     compose.yml, kubernetes.yml, fly.toml by their names; exit status 1 and why at the first fault
"""

import json
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml
from compose_spec import PyOptions

KUBERNETES = "1.34"
#: Fly.io publishes no schema; these are the keys of its reference that the examples may use.
FLY = {
    "": {"app": str, "primary_region": str, "kill_signal": str, "kill_timeout": str, "env": dict, "processes": dict,
         "mounts": dict, "deploy": dict, "http_service": dict},
    "mounts": {"source": str, "destination": str},
    "deploy": {"strategy": str},
    "http_service": {"processes": list, "internal_port": int, "force_https": bool, "auto_stop_machines": str,
                     "auto_start_machines": bool, "min_machines_running": int, "checks": list},
    "http_service.checks": {"method": str, "path": str, "interval": str, "timeout": str, "grace_period": str},
}  # fmt: skip


def compose(text):
    parsed = PyOptions(apply_merge=True).from_yaml(text)
    parsed.validate()
    config = parsed.to_dict()
    for name, service in config["services"].items():
        for volume in service["volumes"]:
            if volume.split(":")[0] not in config["volumes"]:
                raise ValueError(f"{name} uses the volume {volume}, which is not defined")
    return config


def kubernetes(text):
    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    return documents


def fly(text):
    config = tomllib.loads(text)
    check("", config)
    for table in ("mounts", "deploy", "http_service"):
        check(table, config[table])
    for each in config["http_service"]["checks"]:
        check("http_service.checks", each)
    return config


def check(table, values):
    for key, value in values.items():
        if type(value) is not FLY[table].get(key):
            raise ValueError(f"[{table}] {key} = {value!r}")


READERS = {"compose.yml": compose, "kubernetes.yml": kubernetes, "fly.toml": fly}

found = {}
for name in sys.argv[1:]:
    try:
        found[Path(name).name] = READERS[Path(name).name](Path(name).read_text())
    except Exception as error:
        sys.exit(f"{name}: {str(error).splitlines()[0]}")
print(json.dumps(found))
