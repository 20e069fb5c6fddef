//! Public events made of private ones.

use std::{fmt, sync::Arc};

use crate::{
    error::Error,
    event::{Event, Payload, Recorded},
};

/// What is published instead of a category's events.
#[derive(Clone)]
pub(super) struct Mapping(Arc<Map>);

type Map = dyn Fn(&Recorded) -> Result<Option<Public>, MappingError> + Send + Sync;

/// A public event as it is published.
struct Public {
    event_type: Arc<str>,
    schema_version: u32,
    payload: Payload,
}

/// Why a private event has no public form.
#[derive(Debug, thiserror::Error)]
pub(super) enum MappingError {
    #[error(transparent)]
    Decode(Error),
    #[error("the public event {event_type:?} cannot be encoded as JSON")]
    Encode { event_type: &'static str, source: serde_json::Error },
    #[error(
        "it is read as several events, and more than one of them is published: a record has one \
         position, so consumers would drop the second as a repeat; publish one of them, or none"
    )]
    Several,
}

impl Mapping {
    pub(super) fn new<E: Event, P: Event>(
        map: impl Fn(&Recorded<E>) -> Option<P> + Send + Sync + 'static,
    ) -> Self {
        // A name is made once, not for each event.
        let names: Vec<Arc<str>> = P::TYPES.iter().map(|kind| kind.name.into()).collect();
        Self(Arc::new(move |stored| {
            let mut published = None;
            for private in stored.clone().decode::<E>().map_err(MappingError::Decode)? {
                let Some(public) = map(&private) else { continue };
                if published.is_some() {
                    return Err(MappingError::Several);
                }
                let kind = public.event_type();
                let payload = public
                    .encode()
                    .map_err(|source| MappingError::Encode { event_type: kind.name, source })?;
                published = Some(Public {
                    event_type: names[public.type_index()].clone(),
                    schema_version: kind.version,
                    payload,
                });
            }
            Ok(published)
        }))
    }

    /// The public event in the place of the private one; `None` if it stays private.
    pub(super) fn apply(&self, stored: &Recorded) -> Result<Option<Recorded>, MappingError> {
        let public = (self.0)(stored)?;
        Ok(public.map(|Public { event_type, schema_version, payload }| Recorded {
            event_type,
            schema_version,
            ..stored.clone().with_event(payload)
        }))
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mapping(..)")
    }
}
