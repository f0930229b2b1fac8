//! scripts/lib/apt.sh reads the apt sources of machines that this one is not.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What apt.sh says of the sources in `folder`.
fn ask(folder: &Path, question: &str) -> String {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/apt.sh");
    let output = Command::new("sh")
        .args(["-euc", &format!(". {library:?}; {question}")])
        .env("APT_SOURCES", folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sources.list.d")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn one_line_entries() {
    let machine = machine(&[(
        "sources.list",
        "# deb http://commented.test/debian bookworm main\n\
         deb-src http://source.test/debian bookworm main\n\
         deb http://security.test/debian bookworm-security main\n\
         deb [ arch=amd64 signed-by=/keys/debian.gpg ] http://mirror.test/debian bookworm main contrib # the mirror\n\
         deb [arch=amd64] http://mirror.test/debian bookworm-updates main\n",
    )]);
    assert_eq!(
        ask(machine.path(), "apt_entries"),
        "http://security.test/debian bookworm-security -\n\
         http://mirror.test/debian bookworm /keys/debian.gpg\n\
         http://mirror.test/debian bookworm-updates -\n"
    );
    assert_eq!(ask(machine.path(), "apt_mirror bookworm"), "http://mirror.test/debian /keys/debian.gpg\n");
}

#[test]
fn deb822_entries() {
    let machine = machine(&[
        (
            "sources.list.d/debian.sources",
            "Types: deb deb-src\nURIs: http://a.test/debian\n  http://b.test/debian\nSuites: bookworm bookworm-updates\n\
             # a comment\nComponents: main\nSigned-By: /keys/debian.gpg\n\n\
             Types: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: bookworm-backports\nComponents: main\n",
        ),
        (
            "sources.list.d/inline.sources",
            "Types: deb\nURIs: http://c.test/debian\nSuites: sid\nComponents: main\n\
             Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n",
        ),
    ]);
    assert_eq!(
        ask(machine.path(), "apt_entries"),
        "http://a.test/debian bookworm /keys/debian.gpg\n\
         http://a.test/debian bookworm-updates /keys/debian.gpg\n\
         http://b.test/debian bookworm /keys/debian.gpg\n\
         http://b.test/debian bookworm-updates /keys/debian.gpg\n\
         http://c.test/debian sid -\n"
    );
    assert_eq!(ask(machine.path(), "apt_mirror bookworm"), "http://a.test/debian /keys/debian.gpg\n");
}

#[test]
fn security_alone_is_no_mirror() {
    let machine = machine(&[("sources.list", "deb http://security.test/debian bookworm-security main\n")]);
    assert_eq!(ask(machine.path(), "apt_mirror bookworm"), "");
}
