//! How what was done to a root is cut into layers: late, by policy, without building anything again.

use std::borrow::Cow;

use immbuild_cas::digest::TreeId;

/// How own changes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerPolicy {
    /// A layer for each step that changed something.
    PerStep,
    /// The same, and for packages so many at most.
    PerPackage(u32),
    /// One layer for all of them.
    Single,
}

impl LayerPolicy {
    /// As a spec writes it; part of image ids.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::PerStep => "per-step".into(),
            Self::PerPackage(most) => format!("per-package/{most}").into(),
            Self::Single => "single".into(),
        }
    }
}

/// A root on the way from the base to the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// What it is.
    pub tree: TreeId,
    /// The step that made it; none for the base.
    pub step: Option<String>,
}

/// One line of history and, when the two trees differ, the layer that turns one into the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The tree below.
    pub lower: TreeId,
    /// The tree with it.
    pub upper: TreeId,
    /// The line of history.
    pub text: String,
}

/// Cuts the way from `roots`' first, the base, to its last. With `single` the steps before the last are lines of history
/// without a layer, and the last has the layer.
pub fn cut(roots: &[Root], policy: LayerPolicy) -> Vec<Cut> {
    let pairs = roots.windows(2).map(|pair| Cut {
        lower: pair[0].tree,
        upper: pair[1].tree,
        text: pair[1].step.clone().unwrap_or_default(),
    });
    let mut cuts: Vec<Cut> = pairs.collect();
    if let (LayerPolicy::Single, Some(base)) = (policy, roots.first()) {
        let last = cuts.len().saturating_sub(1);
        for (at, cut) in cuts.iter_mut().enumerate() {
            cut.lower = base.tree;
            if at < last {
                cut.upper = base.tree;
            }
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use immbuild_cas::digest::Digest;

    fn tree(name: &str) -> TreeId {
        TreeId::new(Digest::of(name.as_bytes()))
    }

    fn roots() -> Vec<Root> {
        [
            ("base", None),
            ("a", Some("one")),
            ("a", Some("two")),
            ("b", Some("three")),
        ]
        .map(|(name, step)| Root {
            tree: tree(name),
            step: step.map(Into::into),
        })
        .to_vec()
    }

    #[test]
    fn every_step_has_its_line() {
        let cuts = cut(&roots(), LayerPolicy::PerStep);
        let pairs: Vec<_> = cuts
            .iter()
            .map(|cut| (cut.lower, cut.upper, &*cut.text))
            .collect();
        assert_eq!(
            pairs,
            [
                (tree("base"), tree("a"), "one"),
                (tree("a"), tree("a"), "two"),
                (tree("a"), tree("b"), "three"),
            ]
        );
    }

    #[test]
    fn a_single_layer_comes_with_the_last_step() {
        let cuts = cut(&roots(), LayerPolicy::Single);
        let pairs: Vec<_> = cuts.iter().map(|cut| (cut.lower, cut.upper)).collect();
        let base = tree("base");
        assert_eq!(pairs, [(base, base), (base, base), (base, tree("b"))]);
        assert_eq!(cut(&roots()[..1], LayerPolicy::Single), []);
    }
}
