//! Check 24: nothing but the spec and its sources reaches a step.

use std::fs;
use std::process::Command;

use golden_tests::lab::{Lab, NOBODY, immbuild, need_root};

use crate::probe::VIRTUAL;

/// A step that writes down all it is given.
const STEPS: &str = r#"{ tier = "TIER", shell = "busybox env | busybox sort > /env; busybox ls -laR /root /home /tmp /etc 2>&1 > /list || true; busybox cat /root/.profile /etc/passwd > /files 2>&1 || true; umask > /umask; busybox id > /id; busybox pwd > /pwd; busybox date > /date; busybox sort --help > /help 2>&1" },"#;

/// What a user may say for this machine, which must not be seen in any image.
const MIRRORS: &str = "[archive.main]\nmirrors = [\"https://planted.example.org/debian\"]\n";

#[test]
fn files_variables_users_and_locales_of_the_host_change_nothing() {
    need_root();
    for tier in VIRTUAL {
        let steps = STEPS.replace("TIER", tier);
        let plain = Lab::with_shell(&steps, "").run(&["build"]).digest();
        let lab = Lab::with_shell(&steps, "");
        lab.open_to_all();
        let home = lab.beside("home");
        for (name, text) in [
            (".profile", "planted=1\n"),
            (".bashrc", "planted=1\n"),
            (".gitconfig", "[core]\nplanted = 1\n"),
            (".config/immbuild/config.toml", MIRRORS),
            (".npmrc", "planted = 1\n"),
            (".cargo/config.toml", "planted = 1\n"),
        ] {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        let id = NOBODY.to_string();
        let script =
            format!("umask 077; exec setpriv --reuid {id} --regid {id} --clear-groups \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(immbuild())
            .args(["build", "--quiet", "--store"])
            .arg(&lab.store)
            .current_dir(lab.project())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &home)
            .env("USER", "somebody")
            .env("LC_ALL", "tr_TR.UTF-8")
            .env("TZ", "Pacific/Kiritimati")
            .env("SOURCE_DATE_EPOCH", "12345")
            .env("PLANTED", "planted")
            .env("CFLAGS", "-O0")
            .env("PYTHONHASHSEED", "7")
            .env("IMMBUILD_PLANTED", "planted");
        assert_eq!(lab.end(&mut command).digest(), plain, "under `{tier}`");
    }
}
