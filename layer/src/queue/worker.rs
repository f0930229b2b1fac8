//! The thread on which a queue's binds wait.

use crate::device::Device;
use ash::vk;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A queue's thread: started when it is first needed.
#[derive(Default)]
pub struct Worker(Mutex<Option<JoinHandle<()>>>);

impl Worker {
    /// Has `work` run, if it does not yet.
    pub fn start<Q: Send + Sync + 'static>(
        &self,
        queue: &Arc<Q>,
        d: &Arc<Device>,
        work: fn(&Q, &Device),
    ) -> Result<(), vk::Result> {
        let mut thread = self.0.lock();
        if thread.is_none() {
            let (queue, device) = (queue.clone(), d.clone());
            let builder = std::thread::Builder::new().name("tessera bind".into());
            let started = builder.spawn(move || work(&queue, &device)).map_err(|error| {
                tracing::error!("vkQueueBindSparse: no thread for waiting binds: {error}");
                vk::Result::ERROR_OUT_OF_HOST_MEMORY
            })?;
            *thread = Some(started);
        }
        Ok(())
    }

    /// Waits for its end, which the queue has asked it for.
    pub fn join(&self) {
        if let Some(thread) = self.0.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for waiting binds had a fault; please report it");
        }
    }
}
