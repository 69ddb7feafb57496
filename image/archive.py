#!/usr/bin/env python3
"""Writes an image archive without a container engine.

    archive.py --name NAME:TAG... --out FILE [options] FILE[=PATH]... -- ENTRYPOINT [ARGUMENT...]

Each FILE becomes PATH in the image (by default /<its name>), owned by root, readable and executable by everybody, and nothing
else is in it. The archive is an OCI layout with the `manifest.json` of `docker save` beside it, so that `docker load`, `podman
load`, `ctr images import` and `kind load image-archive` all take it. The same input gives the same bytes: no clock, no user and no
order of a folder gets in.
"""

import argparse
import hashlib
import io
import json
import pathlib
import sys
import tarfile

OCI = "application/vnd.oci.image."


def entry(path, data=b"", folder=False):
    """The header of one file or folder, the same on every machine."""
    info = tarfile.TarInfo(path + "/" if folder else path)
    info.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    info.mode = 0o755
    info.size = len(data)
    return info


def layer(files):
    """A layer with the files and the folders above them."""
    packed, folders = io.BytesIO(), set()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, source in sorted(files.items()):
            for folder in reversed(pathlib.PurePosixPath(path).parents[:-1]):
                if folder not in folders:
                    folders.add(folder)
                    tar.addfile(entry(str(folder), folder=True))
            data = source.read_bytes()
            tar.addfile(entry(path, data), io.BytesIO(data))
    return packed.getvalue()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def described(kind, data):
    return {"mediaType": OCI + kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


def pairs(items):
    return dict(item.split("=", 1) for item in items)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, action="append", help="repository:tag, with its registry; one image may have several")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--arch", default="amd64", choices=["amd64", "arm64"])
    parser.add_argument("--user", default="65532:65532", help="who runs in it; 65532 by default")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--expose", action="append", default=[], metavar="PORT")
    parser.add_argument("--cmd", action="append", default=[], help="an argument that a user may replace")
    parser.add_argument("files", nargs="+", metavar="FILE[=PATH]")
    ours, entrypoint = sys.argv[1:], []
    if "--" in ours:
        at = ours.index("--")
        ours, entrypoint = ours[:at], ours[at + 1 :]
    given = parser.parse_args(ours)
    if not entrypoint:
        parser.error("no entrypoint: add `-- /program` at the end")
    for name in given.name:
        if ":" not in name.rsplit("/", 1)[-1]:
            parser.error(f"{name} has no tag: add one, such as {name}:1")
    return given, entrypoint


def main():
    given, entrypoint = arguments()
    files = {}
    for item in given.files:
        source, _, path = item.partition("=")
        source = pathlib.Path(source)
        files[(path or source.name).lstrip("/")] = source
    packed = layer(files)
    config = {"Entrypoint": entrypoint, "User": given.user, "WorkingDir": "/", "Env": ["PATH=/", *given.env]}
    if given.cmd:
        config["Cmd"] = given.cmd
    if given.label:
        config["Labels"] = pairs(given.label)
    if given.expose:
        config["ExposedPorts"] = {f"{port}/tcp": {} for port in given.expose}
    platform = {"architecture": given.arch, "os": "linux"}
    blobs = {}

    def blob(kind, data):
        about = described(kind, data)
        blobs["blobs/sha256/" + about["digest"].removeprefix("sha256:")] = data
        return about

    of_layer = blob("layer.v1.tar", packed)
    image = canonical(
        {
            **platform,
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [of_layer["digest"]]},
        }
    )
    of_image = blob("config.v1+json", image)
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": of_image, "layers": [of_layer]}
    if given.label:
        manifest["annotations"] = pairs(given.label)
    of_manifest = blob("manifest.v1+json", canonical(manifest))

    # containerd takes the whole name, others the tag.
    def named(name):
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
        return {**of_manifest, "platform": platform, "annotations": names}

    index = {
        "schemaVersion": 2,
        "mediaType": OCI + "index.v1+json",
        "manifests": [named(name) for name in given.name],
    }

    def at(about):
        return "blobs/sha256/" + about["digest"].removeprefix("sha256:")

    saved = [{"Config": at(of_image), "Layers": [at(of_layer)], "RepoTags": given.name}]
    parts = {
        "oci-layout": canonical({"imageLayoutVersion": "1.0.0"}),
        "index.json": canonical(index),
        "manifest.json": canonical(saved),
        **blobs,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    # Whoever looks for the archive finds a whole one or none.
    part = given.out.with_name(given.out.name + ".part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in parts.items():
            tar.addfile(entry(path, data), io.BytesIO(data))
    part.replace(given.out)
    print(f"{given.out}  {' '.join(given.name)}  {of_manifest['digest']}")


if __name__ == "__main__":
    main()
