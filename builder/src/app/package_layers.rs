//! The layers of packages: how what an installation did is cut, remembered by what it is made from.

use immbuild_cas::canonical::{Decoder, Encoder};
use immbuild_cas::digest::{Digest, TreeId};
use immbuild_cas::store::{Record, Store as _};

use super::failure::Failure;
use super::session::Session;
use crate::debian::groups::{Group, Groups, groups};
use crate::exec::scheduler::empty_root;
use crate::layer::cut::Cut;

const KIND: &str = "package-layers";

/// Version of how packages are put into groups. Part of format 1: changing it changes image bytes.
const FORM: u32 = 1;

/// So many names stand in a line of history; of others there is a number.
const NAMES: usize = 12;

/// Cuts an installation of the packages `set`: a layer for each group, and one for what is left.
///
/// A group's layer says what is in it and not what was before: its bytes are the same whatever the layers below it have.
pub(super) fn package_cuts(
    session: &Session<'_>,
    cut: &Cut,
    set: TreeId,
    most: u32,
) -> Result<Vec<Cut>, Failure> {
    let store = &session.store;
    let key = key(cut, set, most);
    let known = store.record(KIND, &key)?.as_ref().and_then(of_record);
    let groups = if let Some(groups) = known {
        groups
    } else {
        let (below, root) = (store.tree(&cut.lower)?, store.tree(&cut.upper)?);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let groups = groups(&below, &root, &store.tree(&set)?, most, store)?;
        store.put_record(KIND, &key, &to_record(&groups))?;
        groups
    };
    let nothing = empty_root(store)?;
    let of_group = |group: &Group| Cut {
        lower: nothing,
        upper: group.tree,
        text: format!("{}: {}", cut.text, listed(&group.names)),
    };
    let mut cuts: Vec<Cut> = groups.groups.iter().map(of_group).collect();
    cuts.push(Cut {
        lower: groups.together,
        upper: cut.upper,
        text: cut.text.clone(),
    });
    Ok(cuts)
}

fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES)].join(" ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn key(cut: &Cut, set: TreeId, most: u32) -> Digest {
    let mut out = Encoder::default();
    out.str(KIND);
    out.u32(FORM);
    out.digest(cut.lower.digest());
    out.digest(cut.upper.digest());
    out.digest(set.digest());
    out.u32(most);
    Digest::of(&out.into_bytes())
}

fn to_record(groups: &Groups) -> Record {
    let mut value = Encoder::default();
    value.sequence(groups.groups.iter(), |out, group| {
        out.sequence(group.names.iter(), |out, name| out.str(name));
    });
    let mut trees: Vec<TreeId> = groups.groups.iter().map(|group| group.tree).collect();
    trees.push(groups.together);
    Record {
        value: value.into_bytes(),
        blobs: Vec::new(),
        trees,
    }
}

fn of_record(record: &Record) -> Option<Groups> {
    let (together, trees) = record.trees.split_last()?;
    let mut value = Decoder::over(&record.value);
    if value.count().ok()? != trees.len() {
        return None;
    }
    let mut groups = Vec::new();
    for tree in trees {
        let mut names = Vec::new();
        for _ in 0..value.count().ok()? {
            names.push(String::from_utf8(value.bytes().ok()?.to_vec()).ok()?);
        }
        groups.push(Group { names, tree: *tree });
    }
    value.finish().ok()?;
    Some(Groups {
        groups,
        together: *together,
    })
}
