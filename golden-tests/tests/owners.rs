//! Owners without a range of ids: an image has the same bytes whoever builds it, as long as its steps are traced.

use golden_tests::lab::{Lab, shell_spec};
use golden_tests::machine::{User, run};

const BUILD: [&str; 3] = ["build", "--output", "kind=oci-archive,file=image.tar"];
const USERS: [User; 3] = [User::Root, User::Range, User::Plain];

/// Accounts; files, links and directories of others that no step made; everything that package scripts do with owners.
const STEPS: &str = r#"
  { write = "/etc/passwd", text = "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n" },
  { write = "/etc/group", text = "root:x:0:\nstaff:x:50:user\nuser:x:1000:\n" },
  { mkdir = "/var/local", owner = "0:50", mode = "2775" },
  { mkdir = "/srv/theirs", owner = "7:8" },
  { write = "/srv/theirs/old", text = "old", owner = "7:8" },
  { shell = "busybox --install -s /bin; cd /srv/theirs; ln -s old link; mkfifo pipe; chown -h 7:8 link pipe" },
  { shell = """
      mkdir -p /home/user; chown user:staff /home/user; chmod 2750 /home/user
      cp /bin/busybox /srv/tool; chown 33:33 /srv/tool; chmod 4755 /srv/tool; chown 33:34 /srv/tool
      mkdir -p /opt/a/b; echo one > /opt/a/b/file; ln -s file /opt/a/b/link
      chown -R user:staff /opt/a
      mkdir -p /var/local/lib; echo > /var/local/lib/file
      su user -s /bin/sh -c 'id; echo mine > /home/user/file; ln -s file /home/user/link; mkfifo /home/user/pipe; umask 077; mkdir /home/user/own'
      mv /srv/theirs/old /srv/theirs/new
      touch -h /srv/theirs/link; mv /srv/theirs/pipe /srv/pipe
      stat -c '%n %u:%g %a' /srv/* /srv/theirs/* /home/user/* /opt/a/b/* > /stats
  """ },
  { shell = """
      cp -a /srv/theirs /srv/copy
      ln /srv/theirs/new /srv/theirs/same
      echo more >> /srv/theirs/new
      mv /home/user/link /home/user/moved
      chown -h 0:0 /opt/a/b/link
      stat -c '%n %u:%g %a %h' /srv/* /srv/copy/* /home/user/* /opt/a/b/* > /stats.more
      tar cf /archive.tar /srv /home /opt/a
  """ },
  { run = ["busybox", "id"], as = "user" },
  { shell = "id > /home/user/who; stat -c %u:%g /home/user/who >> /home/user/who", as = "user" },
"#;

fn traced(steps: &str, tier: &str) -> String {
    shell_spec(steps, "").replace("\"isolated\"", &format!("\"{tier}\""))
}

fn lab(spec: &str) -> Lab {
    let lab = Lab::with_shell("", "");
    lab.write("spec.toml", spec);
    lab.open_to_all();
    lab
}

/// Builds what lies in each of these, as each of the users, and tells where the images differ.
#[track_caller]
fn is_the_same_for_everybody(named: &str, lab: impl Fn() -> Lab) {
    let built = USERS.map(|user| {
        let lab = lab();
        let digest = lab.run_as(user, &BUILD).digest();
        (user, lab, digest)
    });
    let [(_, one, digest), others @ ..] = &built;
    for (user, other, others) in others {
        if others != digest {
            let images = [one, other].map(|lab| lab.file("image.tar").display().to_string());
            let compared = one.immbuild(&["compare", &images[0], &images[1]]).output();
            let compared = compared.expect("it can be started").stdout;
            let compared = String::from_utf8_lossy(&compared);
            panic!("{named}: other for {user:?}: {compared}");
        }
    }
}

#[test]
fn everybody_builds_the_same_owners() {
    for tier in ["deterministic", "strict"] {
        is_the_same_for_everybody(tier, || lab(&traced(STEPS, tier)));
    }
}

/// Tries what an ordinary user may do with files of root's, of its own and of its group's, and writes down what it was told.
const TRIED: &str = r#"
try() { if told=$("$@" 2>&1); then echo "ok: $*: $told"; else echo "$?: $*: $told"; fi; }
id
for at in /srv/root /srv/mine /srv/group /srv/closed /srv/sticky; do
  cd $at && pwd || cd /
  try ls $at; try stat -c %u:%g $at/file; try cat $at/file; try cat $at/secret; try readlink $at/link
  try sh -c "echo more >> $at/file"; try touch $at/file; try touch -d @1000 $at/file; try truncate -s 2 $at/file
  try chmod 2664 $at/file; try chown :50 $at/file; try chgrp 7 $at/file; try $at/tool; try sh $at/tool
  try mkdir $at/new; try rmdir $at/new; try ln $at/file $at/hard; try ln -s x $at/soft; try mkfifo $at/pipe
  try mv $at/file $at/moved; try mv $at/moved $at/file; try rm $at/theirs; try rmdir $at/empty
  try cp /bin/busybox $at/copy; try test -r $at/secret; try test -w $at; try test -x $at/tool
  try mv $at/empty /srv/mine/; try chroot $at /file; try find $at
done
try sh -c 'echo > /dev/new'; try sh -c 'echo > /dev/shm/new'; try sh -c 'echo > /new'; try cat /run/secrets
"#;

/// What is tried, and who tries.
const REFUSALS: &str = r#"
  { write = "/etc/passwd", text = "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\nother:x:7:50::/:/bin/sh\n" },
  { write = "/etc/group", text = "root:x:0:\nstaff:x:50:user\nuser:x:1000:\n" },
  { copy = "tried", to = "/bin/tried", mode = "0755" },
  { shell = """
      busybox --install -s /bin
      cp /bin/busybox /bin/really; chmod 4755 /bin/really
      fill() {
        mkdir $1/empty; echo text > $1/file; echo > $1/theirs; echo '#!/bin/true' > $1/tool; ln -s file $1/link
        echo secret > $1/secret; chmod 600 $1/secret; chmod 664 $1/file; chmod 754 $1/tool
      }
      for at in root mine group closed sticky; do mkdir -p /srv/$at; fill /srv/$at; done
      chown -R 65534:65534 /srv/mine; chown -R 7:50 /srv/group; chmod 770 /srv/group; chmod 700 /srv/closed; chmod 1777 /srv/sticky
      chown 65534 /srv/sticky/file; chown 1000 /srv/sticky/theirs
  """ },
  { shell = "tried > /srv/mine/told 2>&1", as = "65534" },
  { shell = """
      su user -s /bin/sh -c tried > /told 2>&1
      start-stop-daemon -S -c other -x /bin/tried >> /told 2>&1
      setpriv --bounding-set=-all 2> /dev/null sh -c tried >> /told 2>&1 || echo no >> /told
      su user -s /bin/sh -c '/bin/really cat /srv/closed/secret; cat /srv/closed/secret' >> /told 2>&1 || true
      grep -q '^ok: ' /told && grep -q 'Permission denied' /told && grep -q 'not permitted' /told
      grep -q '^ok: ' /srv/mine/told && grep -q 'Permission denied' /srv/mine/told
      find /srv | sort | while read -r name; do stat -c '%n %F %u:%g %a %s' "$name"; done > /left
  """ },
"#;

#[test]
fn everybody_is_refused_the_same() {
    for tier in ["deterministic", "strict"] {
        is_the_same_for_everybody(tier, || {
            let spec = traced(REFUSALS, tier);
            let lab = lab(&spec.replace("\n[image]", "\nsource.tried.path = \"tried\"\n[image]"));
            lab.write("tried", format!("#!/bin/sh{TRIED}"));
            lab
        });
    }
}

/// Real programs that become somebody, each of which then runs Python on modules of root's and of its own.
const BECOMES: &str = r#"
immbuild = 1
source.base.image = "./hostile"

[image]
from = "base"
steps = [
  { write = "/opt/root/theirs.py", text = "answer = 42" },
  { write = "/opt/own/mine.py", text = "answer = 42" },
  { shell = "for id in 33 34 38 39 65534; do cp -r /opt/own /opt/$id; chown -R $id /opt/$id; done" },
  { write = "/bin/import", mode = "0755", text = """
#!/bin/sh
cd "/opt/$1"
id
python3 -c "import sys; sys.path.append('/opt/root'); import mine, theirs; print(mine.__cached__)"
cat /etc/shadow
echo "$1" > /var/said
mktemp -d /var/lib/XXXXXX
chmod 600 /etc/passwd
""" },
  { shell = "import 65534 > /opt/65534/told 2>&1 || true", as = "65534" },
  { shell = """
      setpriv --reuid=33 --regid=33 --clear-groups --inh-caps=-all import 33 > /told 2>&1 || true
      setpriv --reuid=34 --regid=34 --init-groups --bounding-set=-all --no-new-privs import 34 >> /told 2>&1 || true
      su -s /bin/sh list -c 'import 38' >> /told 2>&1 || true
      runuser -u irc -- import 39 >> /told 2>&1 || true
      start-stop-daemon --start --chuid www-data --exec /bin/import -- 33 >> /told 2>&1 || true
      python3 -c 'import os; os.setgroups([]); os.setegid(33); os.seteuid(33); print(os.access("/etc/shadow", os.R_OK)); open("/etc/shadow")' >> /told 2>&1 || true
      cp /bin/cat /usr/bin/really; chmod 4755 /usr/bin/really
      setpriv --reuid=33 --regid=33 --clear-groups sh -c 'really /etc/shadow | wc -c' >> /told 2>&1
      chgrp 33 /usr/bin/really; chmod 2755 /usr/bin/really; echo mine > /opt/group; chgrp 33 /opt/group; chmod 640 /opt/group
      setpriv --reuid=34 --regid=34 --clear-groups sh -c 'really /opt/group; cat /opt/group' >> /told 2>&1 || true
      grep -q 'Permission denied' /told; grep -q pycache /told
      grep -q 'Permission denied' /opt/65534/told; test -d /opt/65534/__pycache__; test ! -d /opt/root/__pycache__
  """ },
]
"#;

#[test]
fn whoever_a_program_becomes_is_refused_the_same() {
    let layout = golden_tests::roots::hostile().unwrap_or_else(|error| panic!("{error:#}"));
    is_the_same_for_everybody("programs", || {
        let lab = lab(BECOMES);
        std::os::unix::fs::symlink(&layout, lab.file("hostile")).expect("it can be made");
        lab
    });
}

const CONTROL: &str = "\
Package: thing
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: gives files away
";
const POSTINST: &str = "#!/bin/sh
set -e
useradd --system --home-dir /var/lib/thing --shell /usr/sbin/nologin thing
chown -R thing:games /var/lib/thing
chmod 2770 /var/lib/thing
su thing -s /bin/sh -c 'id; echo made > /var/lib/thing/made'
runuser -u thing -- touch /var/lib/thing/other
setpriv --reuid=33 --regid=33 --clear-groups id > /var/lib/thing/id
install -o thing -g adm -m 4755 /bin/true /usr/bin/thing-tool
dpkg-statoverride --add --update thing games 6711 /usr/bin/thing
";
const INSTALL: &str = r#"
immbuild = 1
source.base.image = "./debian"
source.package.path = "thing.deb"

[image]
from = "base"
steps = [
  { copy = "package", to = "/thing.deb" },
  { run = ["dpkg", "--install", "/thing.deb"] },
  { shell = "find / -xdev -newer /etc/hostname -printf '%p %U:%G %m\\n' > /changed; tar cf /state.tar /var/lib/thing /etc" },
]
"#;

/// A package whose script does what such scripts do.
fn package() -> Vec<u8> {
    let lab = Lab::new("");
    lab.write("thing/DEBIAN/control", CONTROL);
    lab.write("thing/DEBIAN/postinst", POSTINST);
    lab.write("thing/usr/bin/thing", "#!/bin/sh\n");
    lab.write("thing/var/lib/thing/data", "data");
    let path = |name: &str| lab.file(name).display().to_string();
    let (tree, deb) = (path("thing"), path("thing.deb"));
    run("chmod", &["-R", "u=rwX,go=rX", &tree]).expect("it is there");
    for script in ["thing/DEBIAN/postinst", "thing/usr/bin/thing"] {
        run("chmod", &["755", &path(script)]).expect("it is there");
    }
    run("dpkg-deb", &["--root-owner-group", "--build", &tree, &deb]).expect("it is a package");
    lab.read("thing.deb")
}

#[test]
fn a_debian_package_that_gives_files_away_is_installed() {
    let layout = golden_tests::roots::debian().unwrap_or_else(|error| panic!("{error:#}"));
    let package = package();
    is_the_same_for_everybody("a package", || {
        let lab = lab(INSTALL);
        std::os::unix::fs::symlink(&layout, lab.file("debian")).expect("it can be made");
        lab.write("thing.deb", &package);
        lab
    });
}

/// The control: without the tracer the one without a range is refused, and told what to do.
#[test]
fn without_the_tracer_a_range_is_needed() {
    let spec = shell_spec(STEPS, "");
    lab(&spec).run_as(User::Plain, &BUILD).refused_with(
        8,
        &[
            "belongs to ",
            "hint: give the user a range of ids: ",
            "A step of tier `deterministic` or `strict` needs no range",
        ],
    );
}
