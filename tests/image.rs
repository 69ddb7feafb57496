//! How the image is made, as far as no container engine is needed to see it. That it runs, the tests on a real node show.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn image(script: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("image").join(script));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Python writes the archive and the SBOM. Without it there is nothing to look at, which is said, and in CI is a failure.
fn python() -> bool {
    let there =
        Command::new("python3").args(["-c", "import tomllib"]).output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("!!! NOT RUN: tests of the image need Python 3.11");
        assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "no Python 3.11");
    }
    there
}

fn passed(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A file of a tar archive.
fn file(archive: &Path, name: &str) -> Vec<u8> {
    let output = Command::new("tar").arg("-xOf").arg(archive).arg(name).output().expect("tar");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json(archive: &Path, name: &str) -> Value {
    serde_json::from_slice(&file(archive, name)).expect("JSON")
}

#[test]
fn the_archive_has_the_same_bytes_each_time_and_one_file_that_is_not_run_by_root() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("program");
    std::fs::write(&program, "not really a program").expect("a file");
    let archive = |name: &str, arch: &str| {
        let out = folder.path().join(name);
        let mut command = image("archive.py");
        command.args(["--name", "registry.example/revguard:1.2.3", "--name", "registry.example/guard:1"]);
        command.args(["--arch", arch, "--label", "a=b", "--cmd", "serve"]);
        command.args(["--expose", "8443", "--out"]).arg(&out);
        command.arg(format!("{}=/revguard", program.display())).args(["--", "/revguard"]);
        passed(command.output().expect("archive.py"));
        out
    };
    let (one, two, arm) = (archive("one.tar", "amd64"), archive("two.tar", "amd64"), archive("arm.tar", "arm64"));
    assert!(std::fs::read(&one).unwrap() == std::fs::read(two).unwrap(), "two archives of the same differ");

    // Both of the ways that engines read it lead to the same blobs.
    let blob = |digest: &Value| format!("blobs/sha256/{}", digest.as_str().unwrap().strip_prefix("sha256:").unwrap());
    let index = json(&one, "index.json");
    let manifest = json(&one, &blob(&index["manifests"][0]["digest"]));
    let saved = json(&one, "manifest.json");
    assert_eq!(saved[0]["Config"], blob(&manifest["config"]["digest"]));
    assert_eq!(saved[0]["Layers"][0], blob(&manifest["layers"][0]["digest"]));
    for (n, name) in ["registry.example/revguard:1.2.3", "registry.example/guard:1"].into_iter().enumerate() {
        assert_eq!(saved[0]["RepoTags"][n], name);
        assert_eq!(index["manifests"][n]["annotations"]["io.containerd.image.name"], name);
        assert_eq!(index["manifests"][n]["digest"], index["manifests"][0]["digest"]);
    }

    let config = json(&one, &blob(&manifest["config"]["digest"]));
    assert_eq!(config["architecture"], "amd64");
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/revguard"]));
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["serve"]));
    assert_eq!(config["config"]["Labels"]["a"], "b");
    assert!(config["config"]["ExposedPorts"]["8443/tcp"].is_object());
    let layer = folder.path().join("layer.tar");
    std::fs::write(&layer, file(&one, &blob(&manifest["layers"][0]["digest"]))).unwrap();
    let listed = passed(Command::new("tar").arg("-tvf").arg(&layer).output().expect("tar"));
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(listed.starts_with("-rwxr-xr-x 0/0 ") && listed.trim_end().ends_with(" revguard"), "{listed}");

    let index = json(&arm, "index.json");
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
}

#[test]
fn what_is_in_the_image_is_said_whole() {
    if !python() {
        return;
    }
    let sbom: Value = serde_json::from_str(&passed(image("sbom.py").output().expect("sbom.py"))).expect("JSON");
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    let names: Vec<&str> = sbom["components"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    for linked in ["rustls", "ring", "kube", "hyper", "serde-saphyr", "glibc"] {
        assert!(names.contains(&linked), "{linked} is not in the SBOM");
    }
    for only_tests in ["criterion", "proptest", "jsonschema", "libtest-mimic"] {
        assert!(!names.contains(&only_tests), "{only_tests} is in the SBOM, and not in the image");
    }
    // Each is what cargo has checked, and each comes with a licence.
    for component in sbom["components"].as_array().unwrap() {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        assert!(component["name"] == "glibc" || component["hashes"][0]["content"].is_string(), "{component}");
    }
}

/// The layer of dependencies is built from manifests and empty sources: a target that the skeleton does not know would break it.
#[test]
fn the_skeleton_of_the_dockerfile_knows_every_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir(folder.path().join("image")).unwrap();
    for file in ["Cargo.toml", "Cargo.lock", "image/skeleton.sh"] {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    passed(Command::new(folder.path().join("image/skeleton.sh")).output().expect("skeleton.sh"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version=1"]).current_dir(folder.path());
    let metadata: Value = serde_json::from_str(&passed(cargo.output().expect("cargo"))).expect("JSON");
    for target in metadata["packages"][0]["targets"].as_array().unwrap() {
        let path = target["src_path"].as_str().unwrap();
        assert!(Path::new(path).is_file(), "{path} is missing: image/skeleton.sh does not know it");
    }
}

/// Whoever builds with an engine gets the same program as whoever builds without.
#[test]
fn the_dockerfile_runs_the_scripts_that_make_image_runs() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    for said in ["image/binary.sh \"$TARGETARCH\"", "image/sbom.py", "USER 65532:65532", "FROM scratch AS sbom"] {
        assert!(text.contains(said), "the Dockerfile does not say {said}");
    }
    let made = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("image/image.sh")).unwrap();
    for label in text.lines().filter_map(|line| line.split_once("org.opencontainers.image.")) {
        let name = label.1.split('=').next().unwrap();
        assert!(made.contains(&format!("org.opencontainers.image.{name}=")), "image.sh writes no label {name}");
    }
}
