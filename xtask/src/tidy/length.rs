//! No file grows beyond what one reads in one go.

use super::Violation;
use super::source::Source;

/// Lines without tests.
const PRODUCT_MAX: usize = 800;
/// Lines with tests.
const TOTAL_MAX: usize = 1000;

/// At most 800 lines without tests and 1000 with.
pub(super) fn check(source: &Source<'_>) -> Vec<Violation> {
    let path = &source.file.path;
    let total = source.file.text.lines().count();
    let product = source.lines_before_tests;
    let mut violations = Vec::new();
    if product > PRODUCT_MAX {
        let what = format!("{product} lines without tests, {PRODUCT_MAX} allowed: split the file");
        violations.push(Violation::new(path, PRODUCT_MAX + 1, what));
    }
    if total > TOTAL_MAX {
        let what =
            format!("{total} lines, {TOTAL_MAX} allowed: move the tests to a file of their own");
        violations.push(Violation::new(path, TOTAL_MAX + 1, what));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::files::File;
    use super::*;

    fn count(path: &str, product: usize, tests: usize) -> usize {
        let mut text = "a();\n".repeat(product);
        if tests > 0 {
            text.push_str("#[cfg(test)]\nmod tests {\n");
            text.push_str(&"b();\n".repeat(tests - 2));
        }
        check(&Source::of(&File::planted(path, &text)).unwrap()).len()
    }

    #[test]
    fn the_limits_are_exact() {
        assert_eq!(count("a/src/x.rs", 800, 0), 0);
        assert_eq!(count("a/src/x.rs", 801, 0), 1);
        assert_eq!(count("a/src/x.rs", 800, 200), 0);
        assert_eq!(count("a/src/x.rs", 800, 201), 1);
    }

    #[test]
    fn a_file_of_tests_has_the_larger_limit() {
        assert_eq!(count("a/tests/x.rs", 1000, 0), 0);
        assert_eq!(count("a/tests/x.rs", 1001, 0), 1);
    }
}
