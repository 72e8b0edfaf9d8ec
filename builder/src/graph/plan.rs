//! From what a person wants to what will be done: a pure function of the spec, its pins and a platform.
//!
//! Must never know networks, files or clocks: local sources come in as trees.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::canonical::Canonical as _;
use immbuild_cas::digest::Digest;

use super::file_op::{FileOp, Owner};
use super::install::{InstallOp, configuration};
use super::libraries::{Environment, Layout, LibrariesOp};
use super::op::{ExecOp, Op, OpId, OpKind, Pin, Unpack};
use super::{Graph, Origin};
use crate::epoch::Epoch;
use crate::platform::Platform;
use crate::spec::model::{
    self, Command, Configure, DebianSource, Ident, Origin as Named, Resolved, SourceKind, Stage,
    Step, Tier, Unpacking, Verb,
};

/// Where every step of a spec is in a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// For each planned stage its root before the first step and after each.
    pub stages: BTreeMap<Ident, Vec<OpId>>,
    /// For each source in use its op.
    pub sources: BTreeMap<Ident, OpId>,
}

impl Plan {
    /// The root a stage ends with.
    ///
    /// # Panics
    /// The stage was not planned.
    pub fn end(&self, stage: &Ident) -> OpId {
        *self.stages[stage]
            .last()
            .expect("a stage has a root before its first step")
    }
}

/// The sources that a stage, and all it needs, reads from, each with the platforms of the stages that do. Sorted.
pub fn sources_in_use<'a>(spec: &'a Resolved, stage: &Ident) -> Vec<(&'a model::Source, Platform)> {
    let mut open = vec![stage];
    let mut stages: BTreeSet<&Ident> = BTreeSet::new();
    let mut sources: BTreeSet<(&Ident, Platform)> = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some((name, stage)) = spec.stages.get_key_value(name) else {
            continue;
        };
        if !stages.insert(name) {
            continue;
        }
        for origin in origins(stage) {
            match origin {
                Named::Stage(stage) => open.push(stage),
                Named::Source(source) => drop(sources.insert((source, stage.platform))),
            }
        }
    }
    sources
        .into_iter()
        .map(|(name, platform)| (&spec.sources[name], platform))
        .collect()
}

/// What a stage reads from: its `from`, then its steps in order.
fn origins(stage: &Stage) -> impl Iterator<Item = &Named> {
    let from = stage.from.iter().map(|base| &base.origin);
    from.chain(stage.steps.iter().filter_map(|step| match &step.verb {
        Verb::Copy(copy) => Some(&copy.from.origin),
        Verb::Unpack(unpack) => Some(&unpack.from.origin),
        Verb::Install(install) => Some(&install.origin),
        _ => None,
    }))
}

/// Adds what `stage` needs to `graph`.
///
/// `pins` MUST hold every source of [`sources_in_use`]. The spec is free of cycles, which its validation saw to.
pub fn plan(
    spec: &Resolved,
    pins: &BTreeMap<(Ident, Platform), Pin>,
    epoch: Epoch,
    stage: &Ident,
    graph: &mut Graph,
) -> Plan {
    let mut planner = Planner {
        spec,
        pins,
        epoch,
        graph,
        plan: Plan::default(),
    };
    planner.stage(stage);
    planner.plan
}

struct Planner<'a> {
    spec: &'a Resolved,
    pins: &'a BTreeMap<(Ident, Platform), Pin>,
    epoch: Epoch,
    graph: &'a mut Graph,
    plan: Plan,
}

impl Planner<'_> {
    fn stage(&mut self, name: &Ident) -> OpId {
        if self.plan.stages.contains_key(name) {
            return self.plan.end(name);
        }
        let stage = &self.spec.stages[name];
        let start = match &stage.from {
            None => self.graph.add(
                Op {
                    kind: OpKind::Empty,
                    inputs: Vec::new(),
                },
                Origin::Start,
            ),
            Some(base) => self.origin(&base.origin, stage.platform),
        };
        let env = stage_environment(self.spec, stage);
        let mut roots = vec![start];
        let mut equals: BTreeMap<Digest, u32> = BTreeMap::new();
        for (step, number) in stage.steps.iter().zip(1..) {
            let mut ops = self.ops(stage, step, roots[roots.len() - 1], &env);
            if let Some(Op {
                kind: OpKind::Exec(exec),
                ..
            }) = ops.last_mut()
            {
                let before = equals.entry(exec.canonical_digest()).or_default();
                exec.occurrence = *before;
                *before += 1;
            }
            let origin = Origin::Step {
                stage: name.to_string(),
                number,
                text: step_text(step),
            };
            let mut root = roots[roots.len() - 1];
            for op in ops {
                root = self.graph.add(op, origin.clone());
            }
            roots.push(root);
        }
        self.plan.stages.insert(name.clone(), roots);
        self.plan.end(name)
    }

    fn origin(&mut self, origin: &Named, platform: Platform) -> OpId {
        match origin {
            Named::Stage(name) => self.stage(name),
            Named::Source(name) => {
                let origin = Origin::Source {
                    name: name.to_string(),
                };
                let mut id = self.source(name, platform);
                if let SourceKind::Debian(debian) = &self.spec.sources[name].kind {
                    let empty = self.graph.add(
                        Op {
                            kind: OpKind::Empty,
                            inputs: Vec::new(),
                        },
                        Origin::Start,
                    );
                    for op in self.install(debian, platform, self.spec.tier, [empty, id]) {
                        id = self.graph.add(op, origin.clone());
                    }
                }
                self.plan.sources.insert(name.clone(), id);
                id
            }
        }
    }

    /// The source itself: of packages what they hold, and no root.
    fn source(&mut self, name: &Ident, platform: Platform) -> OpId {
        self.graph.add(
            Op {
                kind: OpKind::Source(self.pins[&(name.clone(), platform)].clone()),
                inputs: Vec::new(),
            },
            Origin::Source {
                name: name.to_string(),
            },
        )
    }

    /// What a step does, one after the other: each on the root that the one before left.
    fn ops(
        &mut self,
        stage: &Stage,
        step: &Step,
        base: OpId,
        env: &BTreeMap<String, String>,
    ) -> Vec<Op> {
        let Verb::Install(install) = &step.verb else {
            return vec![self.step(stage, step, base, env)];
        };
        let name = install.origin.name();
        let source = self.source(name, stage.platform);
        let layout = match &self.spec.sources[name].kind {
            SourceKind::Debian(debian) => {
                return self.install(debian, stage.platform, install.tier, [base, source]);
            }
            SourceKind::Python(python) => {
                Layout::Environment(Environment::new(python.interpreter, stage.platform))
            }
            SourceKind::Cargo(_) => Layout::Vendored(self.registries(name, stage.platform)),
            _ => unreachable!("a spec that is read installs packages and libraries only"),
        };
        let to = install.to.clone();
        let libraries = LibrariesOp {
            to: to.expect("a spec that is read says where libraries go"),
            layout,
        };
        vec![Op {
            kind: OpKind::Libraries(libraries),
            inputs: vec![base, source],
        }]
    }

    /// The registries that libraries are from, besides their language's own. Sorted.
    fn registries(&self, name: &Ident, platform: Platform) -> Vec<String> {
        let Pin::Libraries(_, libraries) = &self.pins[&(name.clone(), platform)] else {
            unreachable!("libraries are pinned as such");
        };
        let all: BTreeSet<&String> = libraries
            .iter()
            .filter_map(|library| library.registry.as_ref())
            .collect();
        all.into_iter().cloned().collect()
    }

    /// Packages onto a root, and their scripts. The inputs are the root and the packages.
    fn install(
        &self,
        debian: &DebianSource,
        platform: Platform,
        least: Tier,
        inputs: [OpId; 2],
    ) -> Vec<Op> {
        let install = Op {
            kind: OpKind::Install(InstallOp {
                architecture: platform.debian().to_owned(),
                configure: debian.configure,
                fixups: debian.fixups.clone(),
            }),
            inputs: inputs.to_vec(),
        };
        let mut ops = vec![install];
        if debian.configure == Configure::Scripts {
            ops.push(Op {
                kind: OpKind::Exec(configuration(self.epoch, platform, least)),
                inputs: vec![ops[0].id()],
            });
        }
        ops
    }

    fn step(
        &mut self,
        stage: &Stage,
        step: &Step,
        base: OpId,
        env: &BTreeMap<String, String>,
    ) -> Op {
        let (kind, source) = match &step.verb {
            Verb::Copy(copy) => (
                OpKind::File(FileOp::Copy {
                    from: copy.from.path.clone(),
                    to: copy.to.clone(),
                    include: copy.include.clone(),
                    exclude: copy.exclude.clone(),
                    mode: copy.mode,
                    dir_mode: copy.dir_mode,
                    owner: copy.owner.as_ref().map(owner),
                }),
                Some(&copy.from.origin),
            ),
            Verb::Unpack(unpack) => (
                OpKind::Unpack {
                    from: unpack.from.path.clone(),
                    to: unpack.to.clone(),
                    unpack: unpacking(unpack.how),
                },
                Some(&unpack.from.origin),
            ),
            Verb::Write(write) => (
                OpKind::File(FileOp::Write {
                    path: write.path.clone(),
                    text: write.text.clone().into_bytes(),
                    mode: write.mode,
                    owner: owner(&write.owner),
                }),
                None,
            ),
            Verb::Mkdir(mkdir) => (
                OpKind::File(FileOp::Mkdir {
                    path: mkdir.path.clone(),
                    mode: mkdir.mode,
                    owner: mkdir.owner.as_ref().map(owner),
                }),
                None,
            ),
            Verb::Link(link) => (
                OpKind::File(FileOp::Link {
                    path: link.path.clone(),
                    target: link.target.clone().into_bytes(),
                }),
                None,
            ),
            Verb::Remove(remove) => (
                OpKind::File(FileOp::Remove {
                    path: remove.path.clone(),
                }),
                None,
            ),
            Verb::User(user) => (
                OpKind::File(FileOp::User {
                    name: user.name.clone(),
                    uid: user.uid,
                    gid: user.gid,
                    home: user.home.clone(),
                    login: user.login.clone(),
                    groups: user.groups.clone(),
                }),
                None,
            ),
            Verb::Install(_) => unreachable!("`ops` does not ask for one"),
            Verb::Run(run) => {
                let mut env = env.clone();
                env.extend(run.env.clone());
                (
                    OpKind::Exec(ExecOp {
                        argv: run.command.argv(),
                        env,
                        directory: run.directory.clone(),
                        user: owner(&run.owner),
                        secrets: run.secrets.iter().cloned().collect(),
                        caches: stage.cache.clone(),
                        tier: run.tier,
                        metadata: run.metadata,
                        occurrence: 0,
                        epoch: self.epoch,
                        platform: stage.platform,
                        timeout: run.timeout,
                    }),
                    None,
                )
            }
        };
        let mut inputs = vec![base];
        inputs.extend(source.map(|origin| self.origin(origin, stage.platform)));
        Op { kind, inputs }
    }
}

/// What `from` brings (SPEC A, "Running"), as far as a stage on the way says it, then the stage's own `env`. What a base
/// image brings is added when its config is at hand.
pub fn stage_environment(spec: &Resolved, stage: &Stage) -> BTreeMap<String, String> {
    let mut env = match &stage.from {
        Some(base) if base.origin.name().as_str() == Ident::IMAGE => spec.image.config.env.clone(),
        _ => BTreeMap::new(),
    };
    env.extend(stage.env.clone());
    env
}

/// An owner of the spec as ops have it.
pub fn owner(owner: &model::Owner) -> Owner {
    match owner.clone() {
        model::Owner::Ids { uid, gid } => Owner::Ids { uid, gid },
        model::Owner::Named { user, group } => Owner::Names { user, group },
    }
}

/// How an archive of the spec becomes a tree.
pub fn unpacking(how: Unpacking) -> Unpack {
    Unpack {
        strip: how.strip,
        preserve: how.preserve,
    }
}

/// A step in one line: its verb and the words that tell it from others. Written into the image's history, so it is part
/// of format 1: changing it changes image bytes.
pub fn step_text(step: &Step) -> String {
    let reference = |reference: &model::Reference| {
        if reference.path.is_root() {
            reference.origin.name().to_string()
        } else {
            format!(
                "{}:{}",
                reference.origin.name(),
                &reference.path.to_string()[1..]
            )
        }
    };
    match &step.verb {
        Verb::Copy(copy) => format!("copy {} to {}", reference(&copy.from), copy.to),
        Verb::Unpack(unpack) => format!("unpack {} to {}", reference(&unpack.from), unpack.to),
        Verb::Write(write) => format!("write {}", write.path),
        Verb::Install(install) => match &install.to {
            None => format!("install {}", install.origin.name()),
            Some(to) => format!("install {} to {to}", install.origin.name()),
        },
        Verb::Mkdir(mkdir) => format!("mkdir {}", mkdir.path),
        Verb::Link(link) => format!("link {} to {}", link.path, link.target),
        Verb::Remove(remove) => format!("remove {}", remove.path),
        Verb::User(user) => format!("user {} {}:{}", user.name, user.uid, user.gid),
        Verb::Run(run) => match &run.command {
            Command::Argv(words) => format!("run {}", words.join(" ")),
            Command::Shell(script) => format!("shell {}", script.trim()),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The seeds of a stage's executing steps, in order. Each step is a line of the spec.
    fn seeds(steps: &[&str]) -> Vec<Digest> {
        let text = format!(
            "immbuild = 1\n[image]\nsteps = [\n{}\n]\n",
            steps.join(",\n")
        );
        let spec = crate::spec::parse(&text, "spec.toml").unwrap();
        let arguments = spec.arguments(&BTreeMap::new()).unwrap();
        let resolved = spec.resolve(spec.platforms()[0], &arguments).unwrap();
        let mut graph = Graph::default();
        let image = Ident::image();
        let plan = plan(
            &resolved,
            &BTreeMap::new(),
            Epoch::DEFAULT,
            &image,
            &mut graph,
        );
        let ops = plan.stages[&image].iter().map(|id| graph.op(*id));
        ops.filter_map(|op| match &op.kind {
            OpKind::Exec(exec) => Some(exec.seed()),
            _ => None,
        })
        .collect()
    }

    const UUID: &str = "{ run = [\"uuidgen\"] }";

    #[test]
    fn a_change_upstream_keeps_the_seed() {
        let alone = seeds(&[UUID]);
        let other = "{ write = \"/a\", text = \"a\" }";
        assert_eq!(seeds(&[other, UUID]), alone);
        assert_eq!(seeds(&["{ run = [\"make\"] }", UUID])[1..], alone);
    }

    #[test]
    fn steps_that_execute_the_same_get_different_seeds() {
        let two = seeds(&[UUID, UUID]);
        assert_ne!(two[0], two[1]);
        assert_eq!(two[..1], seeds(&[UUID]));
    }

    #[test]
    fn whatever_a_step_is_defined_by_is_in_its_seed() {
        let all = [
            UUID,
            "{ run = [\"uuidgen\", \"-t\"] }",
            "{ run = [\"uuidgen\"], env = { A = \"1\" } }",
            "{ run = [\"uuidgen\"], metadata = \"clamp\" }",
            "{ run = [\"uuidgen\"], tier = \"strict\" }",
        ];
        let found: BTreeSet<Digest> = all.iter().flat_map(|step| seeds(&[step])).collect();
        assert_eq!(found.len(), all.len());
        let timeout = "{ run = [\"uuidgen\"], timeout = \"1s\" }";
        assert_eq!(seeds(&[timeout]), seeds(&[UUID]), "it decides no byte");
    }

    proptest! {
        #[test]
        fn a_step_put_in_anywhere_reshuffles_no_other(
            letters in proptest::collection::vec(0_u8..3, 0..8),
            at in 0_usize..8,
        ) {
            let texts: Vec<String> = letters
                .iter()
                .map(|letter| format!("{{ run = [\"step-{letter}\"] }}"))
                .collect();
            let mut steps: Vec<&str> = texts.iter().map(String::as_str).collect();
            let before = seeds(&steps);
            let unique: BTreeSet<&Digest> = before.iter().collect();
            prop_assert_eq!(unique.len(), before.len());
            let at = at.min(steps.len());
            steps.insert(at, UUID);
            let mut after = seeds(&steps);
            after.remove(at);
            prop_assert_eq!(after, before);
        }
    }
}
