//! Choosing, on archives that a reader can see.

use std::fmt::Write as _;

use super::*;

/// Stanzas in short: a line for each package, `name version: Field: value; Field: value`.
fn archive(lines: &str) -> String {
    let mut text = String::new();
    for line in lines.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let (head, fields) = line.split_once(": ").unwrap_or((line, ""));
        let (name, version) = head.split_once(' ').unwrap_or((head, "1"));
        let _ = write!(
            text,
            "Package: {name}\nVersion: {}\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {}\n",
            version.trim_end_matches(':'),
            "0".repeat(64),
        );
        for field in fields.split("; ").filter(|it| !it.is_empty()) {
            text += field;
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

fn list(text: &str, rank: Rank) -> List<'_> {
    List {
        text,
        packages: index::parse(text).expect("an index"),
        rank,
    }
}

fn names(text: &[&str]) -> Vec<String> {
    text.iter().map(|name| (*name).to_owned()).collect()
}

fn universe<'t>(texts: &[(&'t str, Rank)]) -> Universe<'t> {
    let lists = texts.iter().map(|(text, rank)| list(text, *rank)).collect();
    Universe::new(lists, "amd64", &BTreeMap::new())
}

/// The names that are chosen, with their reasons.
fn chosen(archive_of: &str, packages: &[&str]) -> Vec<String> {
    let text = archive(archive_of);
    let packages = names(packages);
    let wish = Wish {
        packages: &packages,
        ..Wish::default()
    };
    solved(&text, &wish).unwrap_or_else(|error| panic!("{error}"))
}

fn solved(text: &str, wish: &Wish<'_>) -> Result<Vec<String>, SolveError> {
    let chosen = universe(&[(text, Rank::Normal)]).solve(wish)?;
    Ok(chosen.iter().map(|it| it.package.name.to_owned()).collect())
}

fn error(archive_of: &str, packages: &[&str]) -> String {
    let text = archive(archive_of);
    let packages = names(packages);
    let wish = Wish {
        packages: &packages,
        ..Wish::default()
    };
    solved(&text, &wish)
        .expect_err("it cannot be had")
        .to_string()
}

#[test]
fn what_is_needed_comes_and_nothing_else() {
    let archive = "
        a: Depends: b (>= 1), c
        b 2: Pre-Depends: d; Recommends: e
        c: Depends: a
        d
        e
        f
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "b", "c", "d"]);
}

#[test]
fn reasons_and_dependencies_are_told() {
    let text = archive(
        "
        a: Depends: x | b, v
        b: Recommends: c
        c: Provides: v
        d: Essential: yes
    ",
    );
    let packages = names(&["a"]);
    let wish = Wish {
        packages: &packages,
        recommends: true,
        essential: true,
        ..Wish::default()
    };
    let universe = universe(&[(&text, Rank::Normal)]);
    let all: Vec<(String, String, String)> = universe
        .solve(&wish)
        .expect("solved")
        .into_iter()
        .map(|it| (it.package.name.to_owned(), it.reason, it.depends.join(" ")))
        .collect();
    let line = |name: &str, reason: &str, depends: &str| {
        (name.to_owned(), reason.to_owned(), depends.to_owned())
    };
    assert_eq!(
        all,
        [
            line("a", "requested", "b c"),
            line("b", "needed by a", "c"),
            line("c", "recommended by b", ""),
            line("d", "essential", ""),
        ]
    );
}

#[test]
fn what_is_chosen_already_satisfies_an_alternative() {
    let archive = "
        a: Depends: c, b | c
        b
        c
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "c"]);
    let wanted_too = "
        a: Depends: b | c
        b
        c
    ";
    assert_eq!(chosen(wanted_too, &["a", "c"]), ["a", "c"]);
}

#[test]
fn alternatives_are_tried_in_their_order() {
    let archive = "
        a: Depends: gone | b (>= 2) | c (= 1) | d
        b 1
        c 1: Depends: gone
        d
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "d"]);
}

#[test]
fn a_name_is_satisfied_by_what_provides_it() {
    let providers = "
        a: Depends: v
        late: Provides: v
        later: Provides: v; Priority: optional
        x: Provides: v; Priority: important
    ";
    assert_eq!(chosen(providers, &["a"]), ["a", "x"], "by priority");
    let real = "
        a: Depends: v
        v
        x: Provides: v; Priority: important
    ";
    assert_eq!(chosen(real, &["a"]), ["a", "v"], "the package itself first");
    let read_last = "
        a: Depends: v
        x: Provides: v
        b: Depends: y
        y: Provides: v
    ";
    assert_eq!(chosen(read_last, &["a"]), ["a", "y"], "what apt reads last");
    let versioned = "
        a: Depends: v (>= 2)
        w: Provides: v
        x: Provides: v (= 1)
        y: Provides: v (= 2)
    ";
    assert_eq!(
        chosen(versioned, &["a"]),
        ["a", "y"],
        "in the right version"
    );
}

#[test]
fn any_architecture_is_only_that_of_a_package_that_allows_it() {
    let archive = "
        a: Depends: b:any | c:any | d:amd64
        b
        c: Multi-Arch: allowed
        d
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "c"]);
}

#[test]
fn a_conflict_leads_to_the_next_alternative() {
    let archive = "
        a: Depends: b, c | d
        b: Conflicts: c
        c
        d
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "b", "d"]);
    let by_version = "
        a: Depends: b, c
        b: Breaks: c (<< 1)
        c 1
    ";
    assert_eq!(chosen(by_version, &["a"]), ["a", "b", "c"]);
    let itself = "
        a: Provides: v; Conflicts: v
    ";
    assert_eq!(chosen(itself, &["a"]), ["a"], "not with itself");
}

#[test]
fn an_early_choice_gives_way_to_what_must_be() {
    let archive = "
        a: Depends: x | y, b
        b: Depends: c
        c: Conflicts: x
        x
        y
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "b", "c", "y"]);
}

#[test]
fn what_a_failed_alternative_brought_is_put_back() {
    let archive = "
        a: Depends: b | c
        b: Depends: helper, gone
        helper
        c
    ";
    assert_eq!(chosen(archive, &["a"]), ["a", "c"]);
}

#[test]
fn preferred_names_come_first_and_excluded_ones_never() {
    let text = archive(
        "
        a: Depends: b | c, d, e | f
        b
        c
        d
        e
        f
    ",
    );
    let packages = names(&["a"]);
    let (prefer, exclude) = (names(&["c"]), names(&["d", "e"]));
    let wish = Wish {
        packages: &packages,
        prefer: &prefer,
        exclude: &exclude,
        ..Wish::default()
    };
    assert_eq!(solved(&text, &wish), Ok(names(&["a", "c", "f"])));
}

#[test]
fn suites_count_by_rank_then_version_then_order() {
    let old = archive("a 1\nb 1\nc 1\n");
    let new = archive("a 2\nb 1\nd 1\n");
    let version = |ranks: [Rank; 2], keep: &[(&str, &str)]| {
        let lists = vec![list(&old, ranks[0]), list(&new, ranks[1])];
        let keep = keep
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect();
        let universe = Universe::new(lists, "amd64", &keep);
        let all: Vec<String> = ["a", "b", "d"]
            .iter()
            .map(|name| {
                let id = universe.id(name).expect("there");
                format!(
                    "{} from {}",
                    universe.package(id).version,
                    universe.candidates[id].0
                )
            })
            .collect();
        all.join(", ")
    };
    assert_eq!(
        version([Rank::Normal, Rank::Normal], &[]),
        "2 from 1, 1 from 0, 1 from 1"
    );
    assert_eq!(
        version([Rank::Normal, Rank::Later], &[]),
        "1 from 0, 1 from 0, 1 from 1"
    );
    assert_eq!(
        version([Rank::Normal, Rank::Normal], &[("a", "1"), ("b", "9")]),
        "1 from 0, 1 from 0, 1 from 1"
    );
}

#[test]
fn the_order_of_the_wish_does_not_matter() {
    let archive = "
        a: Depends: x | y
        b: Depends: y | x
        x
        y
    ";
    assert_eq!(chosen(archive, &["a", "b"]), chosen(archive, &["b", "a"]));
}

#[test]
fn a_virtual_name_means_its_only_provider() {
    let one = "
        x: Provides: v
    ";
    assert_eq!(chosen(one, &["v"]), ["x"]);
    let two = "
        x: Provides: v
        y: Provides: v
    ";
    assert_eq!(error(two, &["v"]), "`v` is no package: x, y provide it");
}

#[test]
fn what_cannot_be_had_is_told_with_the_way_to_it() {
    assert_eq!(
        error("nginx-light", &["nginx-ligth"]),
        "the package `nginx-ligth` is not there"
    );
    let chain = "
        a: Depends: b
        b: Depends: gone | c (>= 2)
        c 1
    ";
    assert_eq!(
        error(chain, &["a"]),
        "`b` needs `gone | c (>= 2)`, and there is no `gone`, `c` is there in version 1 (wanted by a → b)"
    );
    let conflict = "
        mta: Depends: mta-config; Provides: mail-transport-agent; Conflicts: mail-transport-agent
        mta-config: Conflicts: other
        other: Provides: mail-transport-agent
    ";
    assert_eq!(
        error(conflict, &["mta", "other"]),
        "`other` cannot be there beside `mta`: `mta` says `Conflicts: mail-transport-agent`; \
         `mta-config` cannot be there beside `other`: `mta-config` says `Conflicts: other` (wanted by mta → mta-config)"
    );
}

#[test]
fn names_that_may_have_been_meant_are_told() {
    let text = archive("nginx\nnginx-light\nnginx-full\nzlib1g\n");
    let packages = names(&["nginx-ligth"]);
    let wish = Wish {
        packages: &packages,
        ..Wish::default()
    };
    let Err(SolveError::NotFound { near, .. }) = solved(&text, &wish) else {
        panic!("it is not there");
    };
    assert_eq!(near, ["nginx-light"]);
}
