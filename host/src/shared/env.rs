//! Environment variables that tell a container where its files are. A call cannot set them.

/// The directory of the input files.
pub const INPUT_DIR: &str = "HIPHOPS_INPUT_DIR";
/// The directory in which the container writes its result.
pub const OUTPUT_DIR: &str = "HIPHOPS_OUTPUT_DIR";
/// The path of the result file, relative to [`OUTPUT_DIR`].
pub const RESULT_PATH: &str = "HIPHOPS_RESULT_PATH";

/// All of them.
pub const ALL: [&str; 3] = [INPUT_DIR, OUTPUT_DIR, RESULT_PATH];
