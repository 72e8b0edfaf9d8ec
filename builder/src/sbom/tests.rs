use serde_json::Value;

use super::*;
use crate::lock::model::{PackagePin, ReleasePin};
use crate::spec::model::Ident;

fn ident(name: &str) -> Ident {
    Ident::new(name).expect("a name")
}

fn package(name: &str, version: &str, depends: &[&str]) -> PackagePin {
    PackagePin {
        name: name.into(),
        arch: "amd64".into(),
        version: version.into(),
        for_architectures: Vec::new(),
        archive: ident("main"),
        path: format!("pool/{name}.deb"),
        size: 1,
        sha256: Digest::of(name.as_bytes()),
        source: "src".into(),
        source_version: None,
        depends: depends.iter().map(|name| (*name).to_owned()).collect(),
        reason: "requested".into(),
    }
}

fn pin(packages: Vec<PackagePin>) -> DebianPin {
    DebianPin {
        solver: "apt-greedy/1".into(),
        releases: vec![ReleasePin {
            archive: ident("main"),
            suite: "bookworm".into(),
            inrelease: Digest::of(b"release"),
            date: Epoch::DEFAULT,
            signers: Vec::new(),
        }],
        packages,
    }
}

const BOOKWORM: Distribution<'_> = Distribution {
    name: "debian",
    suite: "bookworm",
};

fn bill(packages: Vec<PackagePin>) -> Bill {
    let mut bill = Bill::new("shop", Epoch::DEFAULT);
    bill.add_packages(&pin(packages), BOOKWORM, "amd64");
    bill
}

fn two() -> Vec<PackagePin> {
    vec![package("a", "1:1.2+b1~c", &["b"]), package("b", "2", &[])]
}

fn read(bill: &Bill, form: Form) -> Value {
    serde_json::from_slice(bill.to_json(form).as_bytes()).expect("JSON")
}

#[test]
fn a_package_has_the_url_that_scanners_know() {
    let mut nginx = package("nginx-light", "1.22.1-9+deb12u11", &[]);
    nginx.source = "nginx".into();
    nginx.arch = "all".into();
    assert_eq!(
        package_url(&nginx, BOOKWORM),
        "pkg:deb/debian/nginx-light@1.22.1-9%2Bdeb12u11?arch=all&distro=bookworm&upstream=nginx"
    );
    let mut g = package("libstdc++6", "1:12~x", &[]);
    g.source = "gcc-12".into();
    g.source_version = Some("12.2".into());
    assert_eq!(
        package_url(&g, BOOKWORM),
        "pkg:deb/debian/libstdc%2B%2B6@1:12~x?arch=amd64&distro=bookworm&upstream=gcc-12%4012.2"
    );
}

#[test]
fn cyclonedx_says_what_there_is_and_what_needs_what() {
    let document = read(&bill(two()), Form::CycloneDx);
    assert_eq!(document["specVersion"], "1.6");
    let components = document["components"].as_array().expect("a list");
    let names: Vec<&Value> = components.iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    let (a, b) = (&components[0]["bom-ref"], &components[1]["bom-ref"]);
    let dependencies = document["dependencies"].as_array().expect("a list");
    let of_a = dependencies.iter().find(|it| it["ref"] == *a).expect("a");
    assert_eq!(of_a["dependsOn"][0], *b);
    assert_eq!(
        components[0]["hashes"][0]["content"],
        Digest::of(b"a").to_hex()
    );
}

#[test]
fn spdx_says_the_same() {
    let document = read(&bill(two()), Form::Spdx);
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    let packages = document["packages"].as_array().expect("a list");
    assert_eq!(packages.len(), 3);
    assert_eq!(packages[1]["versionInfo"], "1:1.2+b1~c");
    let relationships = document["relationships"].as_array().expect("a list");
    let kinds: Vec<&str> = relationships
        .iter()
        .filter_map(|it| it["relationshipType"].as_str())
        .collect();
    assert_eq!(kinds, ["DESCRIBES", "CONTAINS", "DEPENDS_ON", "CONTAINS"]);
}

#[test]
fn equal_locks_give_equal_documents_and_others_do_not() {
    let mut turned = two();
    turned.reverse();
    for form in [Form::Spdx, Form::CycloneDx] {
        assert_eq!(
            bill(two()).to_json(form),
            bill(turned.clone()).to_json(form)
        );
        let mut bumped = two();
        bumped[1].version = "3".into();
        assert_ne!(bill(two()).digest(), bill(bumped).digest());
    }
}
