#!/usr/bin/env python3
"""Prints what is in the image as a CycloneDX 1.6 document: every crate that the program is linked from, and the C library, which
is static; nothing that only tests or build scripts use.

    sbom.py [TARGET]       such as x86_64-unknown-linux-gnu

It reads what cargo resolved from Cargo.lock, and asks the C library for its version. The same of both gives the same bytes.
"""

import hashlib
import json
import platform
import re
import subprocess
import sys
import tomllib
import uuid


def metadata(target):
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(resolve):
    """Package ids that the root is linked from, each with those that it needs itself."""
    nodes = {node["id"]: node for node in resolve["nodes"]}
    seen, open_ = {}, [resolve["root"]]
    while open_:
        this = open_.pop()
        if this in seen:
            continue
        # `kind` is null for ordinary dependencies, else dev or build.
        seen[this] = sorted({d["pkg"] for d in nodes[this]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])})
        open_ += seen[this]
    return seen


def licences(package):
    if not package["license"]:
        return {}
    # Old packages separate alternatives by a slash.
    return {"licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]}


def component(package, checksums, kind):
    name, version = package["name"], package["version"]
    purl = f"pkg:cargo/{name}@{version}"
    out = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl, **licences(package)}
    if package["description"]:
        out["description"] = " ".join(package["description"].split())
    if package["repository"]:
        out["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if (name, version) in checksums:
        out["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
    return out


def c_library():
    """glibc, as the machine that links has it; a cross compiler of the same Debian has the same."""
    name, version = subprocess.run(["getconf", "GNU_LIBC_VERSION"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    purl = f"pkg:generic/{name}@{version}"
    about = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**about, "licenses": [{"expression": "LGPL-2.1-or-later"}]}


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else f"{platform.machine()}-unknown-linux-gnu"
    with open("Cargo.lock", "rb") as file:
        lock = file.read()
    checksums = {(p["name"], p["version"]): p["checksum"] for p in tomllib.loads(lock.decode())["package"] if "checksum" in p}
    seen = metadata(target)
    packages = {package["id"]: package for package in seen["packages"]}
    graph, root = linked(seen["resolve"]), seen["resolve"]["root"]
    order = sorted(graph, key=lambda i: (packages[i]["name"], packages[i]["version"]))
    libc = c_library()
    refs = {i: f"pkg:cargo/{packages[i]['name']}@{packages[i]['version']}" for i in order}
    print(
        json.dumps(
            {
                "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
                "bomFormat": "CycloneDX",
                "specVersion": "1.6",
                "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(lock + target.encode()).digest()[:16], version=4)}",
                "version": 1,
                "metadata": {
                    "component": component(packages[root], checksums, "application"),
                    "properties": [{"name": "cargo:target", "value": target}],
                },
                "components": [component(packages[i], checksums, "library") for i in order if i != root] + [libc],
                "dependencies": [
                    {"ref": refs[i], "dependsOn": sorted(refs[d] for d in graph[i]) + [libc["bom-ref"]] * (i == root)}
                    for i in order
                ],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
