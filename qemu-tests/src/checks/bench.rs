//! What a run costs, counted in instructions, and that it does not grow.

pub(crate) mod contender;
pub(crate) mod guard;
pub(crate) mod machine;
