# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
name: digest
short_description: Sum up the sites of a host
version_added: 0.2.0
description:
  - Makes a line of each site that M(mountjail.mountjail.site_info) found, for pages and tables.
author:
  - mountjail developers (@mountjail)
options:
  _input:
    description:
      - The RV(mountjail.mountjail.site_info#module:sites) that were found.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Look at all sites
  mountjail.mountjail.site_info:
  register: jails

- name: Fail if anything is not right
  ansible.builtin.assert:
    that: jails.sites | mountjail.mountjail.digest | map(attribute='wrong') | flatten | length == 0
"""

RETURN = r"""
_value:
  description:
    - For each site C(site), C(root), C(state), which is V(broken) for a site with mistakes, the
      numbers C(mounts), C(stale) and C(outdated), of processes that use old files, and C(wrong), a
      list of sentences.
  type: list
  elements: dict
  sample:
    [
      {
        "site": "shop",
        "root": "/srv/www/shop",
        "state": "drifted",
        "mounts": 34,
        "stale": 1,
        "outdated": 0,
        "wrong": ["/etc/hosts is stale"],
      },
    ]
"""


def wrong_mounts(place):
    return [mount for mount in place.get("mounts") or [] if mount["state"] != "ok"]


def old_process(process):
    pids = ", ".join(str(pid) for pid in process["pids"])
    hint = process.get("hint")
    text = "%s (%s) uses old files" % (process.get("name") or "a process", pids)
    return text + "; try: " + hint if hint else text


def failure(error):
    remedy = error.get("remedy")
    return error["reason"] + ("; try: " + remedy if remedy else "")


def what_is_wrong(site, places):
    """Each thing once, in the order in which it is worth reading."""
    found = [failure(error) for error in site.get("errors") or []]
    for place in places:
        # A site's errors are among its reasons.
        found += [] if found and place is site else place.get("reasons") or []
        found += ["%s is %s" % (mount["target"], mount["state"]) for mount in wrong_mounts(place)]
        found += [old_process(process) for process in place.get("outdated") or []]
    if not found and site.get("state") not in ("up", None):
        found = site.get("reasons") or ["it is " + site["state"]]
    return list(dict.fromkeys(found))


def line(site):
    places = site["places"] if "places" in site else [site]
    mounts = [mount for place in places for mount in place.get("mounts") or []]
    outdated = [process for place in places for process in place.get("outdated") or []]
    return {
        "site": site["site"],
        "root": site.get("root"),
        "state": "broken" if site.get("errors") else site.get("state"),
        "mounts": len(mounts),
        "stale": sum(mount["state"] == "stale" for mount in mounts),
        "outdated": sum(len(process["pids"]) for process in outdated),
        "wrong": what_is_wrong(site, places),
    }


def digest(sites):
    return [line(site) for site in sites]


class FilterModule(object):
    def filters(self):
        return {"digest": digest}
