//! What the book takes from the code is what the code says.

use golden_tests::workspace;

/// `BLESS=1` writes the page anew.
#[test]
fn the_reference_of_the_spec_is_the_one_that_the_parser_goes_by() {
    let page = workspace().join("book/src/spec-reference.md");
    let reference = immbuild::spec::schema::reference();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&page, &reference).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&page).expect("the page is there");
    assert_eq!(found, reference, "run this test with BLESS=1");
}
