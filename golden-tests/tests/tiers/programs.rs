//! Check 23: what the root has of languages and tools does its work.

use crate::probe::{VIRTUAL, log};

#[test]
fn programs_complete() {
    let script = r#"
python3 -m compileall -q /usr/lib/python3.11/json && echo compileall
python3 -c 'import venv, zipfile, tarfile, ssl, sqlite3, asyncio, multiprocessing, hashlib; print(hashlib.sha256(b"").hexdigest()[:8])'
mkdir -p pkg/greet; echo 'def hello(): return "hello"' > pkg/greet/__init__.py
printf '[project]\nname = "greet"\nversion = "1"\n[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n' > pkg/pyproject.toml
perl -MDigest::SHA=sha256_hex -MFile::Temp=tempfile -MTime::HiRes=sleep -e '($f) = tempfile; sleep 0.5; print substr(sha256_hex(""), 0, 8), "\n"'
sqlite3 db 'create table t(a); insert into t values (random()); select count(*) from t'
git init -q r; cd r; git config user.email a@b; git config user.name a; echo x > x; git add x; git commit -qm x; git gc -q; git fsck && echo git; git clone -q . ../r2 && echo clone; cd ..
openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out cert.pem -subj /CN=a -days 1 2> /dev/null; openssl x509 -in cert.pem -noout -startdate
ldconfig; fc-cache -s && echo fonts
mandb -q -c 2> /dev/null && echo man
useradd -m somebody; getent passwd somebody | cut -d: -f1
dpkg --audit; dpkg-query -W dpkg | cut -f1
xz -T4 < /usr/bin/make | xz -d | cmp - /usr/bin/make && zstd -q -T4 < /usr/bin/make | zstd -qd | cmp - /usr/bin/make && pigz < /usr/bin/make | gzip -d | cmp - /usr/bin/make && echo compressors
mksquashfs r image.sqfs -quiet -no-progress > /dev/null && echo squashfs
seq 100 | xargs -P 8 -n 3 echo | wc -w
printf 'int main(void){return 0;}' > m.c; gcc -flto -g -O2 -o m m.c; gcc -fsanitize=address -o m m.c 2> /dev/null && ASAN_OPTIONS=detect_leaks=0 ./m && echo sanitised
"#;
    let expected = "compileall
e3b0c442
e3b0c442
1
git
clone
notBefore=Jan  1 00:00:0";
    for tier in VIRTUAL {
        let said = log(tier, script);
        assert!(said.starts_with(expected), "under `{tier}`:\n{said}");
        for word in [
            "fonts",
            "man",
            "somebody",
            "dpkg",
            "compressors",
            "squashfs",
            "100",
        ] {
            assert!(
                said.lines().any(|line| line == word),
                "under `{tier}`, no `{word}` in:\n{said}"
            );
        }
    }
}
