# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the modules share: the program, and what it prints as JSON."""

from __future__ import annotations

import json
import os

# The version of the JSON that these modules know.
VERSION = 1

# Options of each module that writes a file.
CONTENTS = {
    "config": {"type": "dict"},
    "content": {"type": "str"},
}

ARGUMENTS = {
    "executable": {"type": "str", "default": "mountjail"},
    "config_dir": {"type": "path"},
    "state_dir": {"type": "path"},
    "timeout": {"type": "int"},
}


class Mountjail:
    """The program on this host."""

    def __init__(self, module):
        self.module = module
        program = module.params["executable"]
        if os.sep not in program:
            program = module.get_bin_path(program, required=True)
        self.command = [program]
        for option in ("config_dir", "state_dir", "timeout"):
            value = module.params[option]
            if value is not None:
                self.command += ["--" + option.replace("_", "-"), str(value)]

    @property
    def config_dir(self):
        return self.module.params["config_dir"] or "/etc/mountjail"

    def run(self, arguments, data=None, options=()):
        """Runs a command with --json; returns its object. Anything that failed ends the module."""
        command = self.command + list(options) + arguments + ["--json"]
        code, out, err = self.module.run_command(command, data=data, binary_data=True)
        try:
            result = json.loads(out)
        except ValueError:
            self.module.fail_json(
                msg=(err or out).strip() or "mountjail printed nothing",
                rc=code,
                cmd=command,
            )
        if result.get("version") != VERSION:
            self.module.fail_json(
                msg="this mountjail's JSON has the version %s, and this collection knows %s"
                % (result.get("version"), VERSION)
            )
        errors = list(result.get("errors", []))
        for site in result.get("sites", []):
            if isinstance(site, dict):
                errors += site.get("errors", []) + site.get("conflicts", [])
        # 3: differences were found.
        if errors or code not in (0, 3):
            self.fail(errors, code, err)
        return result

    def fail(self, errors, code, err):
        reasons = [
            error["reason"] + ("; try: " + error["remedy"] if error.get("remedy") else "")
            for error in errors
        ]
        message = "\n".join(reasons) or err.strip()
        self.module.fail_json(msg=message, errors=errors, rc=code, stderr=err)


def to_yaml(value):
    """A manifest from a dictionary: the same text each time, without a library for YAML."""
    lines = ["# Managed by Ansible"]
    for key, item in value.items():
        if isinstance(item, list) and item:
            lines.append("%s:" % key)
            lines += ["  - " + json.dumps(one, ensure_ascii=False) for one in item]
        else:
            lines.append("%s: %s" % (key, json.dumps(item, ensure_ascii=False)))
    return "\n".join(lines) + "\n"


def text_of(module):
    """The text that C(config) or C(content) gives; None: neither is given."""
    config = module.params["config"]
    return module.params["content"] if config is None else to_yaml(config)


def staged(directory, name, text):
    """The text in a new file of that directory, which can be moved to its place."""
    new = os.path.join(directory, name + ".yaml")
    with open(new, "w", encoding="utf-8") as written:
        written.write(text)
    os.chmod(new, 0o644)
    return new


def put(module, new, file):
    """Moves a staged file to its place. If there is a link, the file that it names is replaced."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    module.atomic_move(new, os.path.realpath(file))


def diffs(diff):
    """What Ansible shows with --diff, from a `diff` of mountjail."""
    found = []
    manifest = diff["manifest"]
    if manifest["before"] != manifest["after"]:
        found.append(
            {
                "before_header": manifest["file"],
                "after_header": manifest["file"],
                "before": manifest["before"] or "",
                "after": manifest["after"] or "",
            }
        )
    mounts = diff["mounts"]
    if mounts and mounts["before"] != mounts["after"]:
        text = {key: "".join(line + "\n" for line in mounts[key]) for key in mounts}
        found.append({"before_header": "mounts", "after_header": "mounts", **text})
    return found


def read(path):
    """The text of a file; None: there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
