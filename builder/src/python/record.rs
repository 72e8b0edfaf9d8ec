//! `RECORD`: every file of a wheel or an installed package with its digest (binary distribution format, "The .dist-info
//! directory"). The only home of `csv`.

use immbuild_cas::digest::Digest;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Seen from the directory that the packages are in.
    pub path: String,
    /// `sha256=…` in base64; absent for the record itself.
    pub hash: Option<String>,
    /// Bytes, where it is said.
    pub size: Option<u64>,
}

/// Reads it; the error says what is wrong with it.
pub fn parse(text: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let field = |nth: usize| record.get(nth).filter(|text| !text.is_empty());
        let path = field(0).ok_or("a line names no file")?.to_owned();
        let size = match field(2) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| format!("the size of `{}` is no number", path.escape_debug()))?,
            ),
        };
        rows.push(Row {
            path,
            hash: field(1).map(str::to_owned),
            size,
        });
    }
    Ok(rows)
}

/// The text of a record, sorted, as pip writes it but for the ends of lines, which are line feeds. Part of format 1: changing it changes image bytes.
pub fn write(rows: &mut [Row]) -> Vec<u8> {
    rows.sort();
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .terminator(csv::Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    for row in rows {
        let size = row.size.map(|size| size.to_string()).unwrap_or_default();
        let hash = row.hash.as_deref().unwrap_or_default();
        writer
            .write_record([row.path.as_str(), hash, &size])
            .expect("memory takes everything");
    }
    writer.into_inner().expect("memory takes everything")
}

/// A digest as records have it.
pub fn hash(digest: &Digest) -> String {
    format!("sha256={}", base64(digest.as_bytes()))
}

/// RFC 4648 §5 without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let byte = |nth: usize| u32::from(three.get(nth).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for nth in 0..=three.len() {
            let six = bits >> (18 - 6 * nth) & 63;
            out.push(char::from(LETTERS[six as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn a_record_is_read_and_written_with_quotes_where_they_are_needed() {
        let text = b"b.py,sha256=x,3\r\n\"a,\"\"1.py\",sha256=y,\na.dist-info/RECORD,,\n";
        let mut rows = parse(text).expect("a record");
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1].path, "a,\"1.py");
        let written = write(&mut rows);
        assert_eq!(
            String::from_utf8(written.clone()).expect("text"),
            "\"a,\"\"1.py\",sha256=y,\na.dist-info/RECORD,,\nb.py,sha256=x,3\n"
        );
        assert_eq!(parse(&written).expect("a record"), rows);
        assert!(parse(b",sha256=x,1\n").is_err());
        assert!(parse(b"a,sha256=x,one\n").is_err());
    }
}
