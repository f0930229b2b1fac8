//! What the layer knows of each driver: where its resources are, and how its memory is reached. One file a driver.

pub mod lavapipe;
