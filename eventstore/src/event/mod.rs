//! Events: what happened, under a stored name and a schema version that outlive the Rust code.

mod codec;
mod decoded;
mod metadata;
mod recorded;

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    decoded::{Decoded, DecodedIter},
    metadata::{Metadata, MetadataFields},
    recorded::{Payload, Recorded},
};
use crate::{error::DecodeError, shape::ShapeText};

/// How one kind of event is stored: its name, its schema version, and the names it had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    /// The stored name. It stays the same when the Rust variant is renamed.
    pub name: &'static str,
    /// The version of the payload's shape, from 1.
    pub version: u32,
    /// Earlier stored names that still decode as this event.
    pub aliases: &'static [&'static str],
}

impl EventType {
    /// True if events stored under `name` are of this type.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// A stored type that is no variant any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetiredType {
    /// The stored name.
    pub name: &'static str,
    /// The highest version that is still read: `u32::MAX` where the payload is not looked at.
    pub version: u32,
}

/// The events of one aggregate: an enum with one variant for each kind of event.
///
/// Derive it. A variant's payload is stored as the JSON of its fields alone (`{"amount":100}`),
/// its name and schema version beside it, so SQL and other languages read it without knowing
/// how serde tags enums. Each variant's stored name is its Rust name in snake case unless
/// `name` says otherwise:
///
/// ```
/// use annals_eventstore::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum LoanEvent {
///     Submitted { amount: i64 },
///     // Renamed in Rust; what is stored keeps its name, and older names still decode.
///     #[event(name = "approved", alias = "accepted", version = 2)]
///     Granted,
/// }
///
/// assert_eq!(LoanEvent::Granted.event_type().name, "approved");
/// assert_eq!(LoanEvent::Submitted { amount: 1 }.event_type().name, "submitted");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "add `#[derive(Event, Serialize, Deserialize)]` to the enum of this aggregate's events"
)]
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Every kind of event, in the order of the enum's variants.
    const TYPES: &'static [EventType];

    /// The index of this event's kind in [`Event::TYPES`].
    fn type_index(&self) -> usize;

    /// The stored name and version of this event.
    fn event_type(&self) -> &'static EventType {
        &Self::TYPES[self.type_index()]
    }

    /// Writes the shape of the payload of the kind of event with this index in [`Event::TYPES`].
    ///
    /// What does not say otherwise is opaque: changes of it are not noticed.
    fn describe(index: usize, text: &mut ShapeText) {
        let _ = index;
        text.opaque(std::any::type_name::<Self>());
    }

    /// What serde calls the variant of the kind of event with this index in [`Event::TYPES`]: it finds the
    /// variant in a schema of the enum. `None` where that is not known.
    fn variant_name(index: usize) -> Option<&'static str> {
        let _ = index;
        None
    }

    /// This event's payload as it is stored: the JSON of the variant's fields.
    ///
    /// # Errors
    /// Fails where the event's own `Serialize` fails, for example on a map whose keys are not
    /// strings.
    fn encode(&self) -> Result<Payload, serde_json::Error> {
        codec::encode(self)
    }

    /// Stored types that are no variants any more: they decode as several events, or as none.
    const RETIRED: &'static [RetiredType] = &[];

    /// Decodes the payload of an earlier version of the kind with this index in [`Event::TYPES`], and
    /// brings it up; `None` if it is read like that of the present version.
    ///
    /// # Errors
    /// Fails if the payload does not fit that version.
    fn upcast(index: usize, version: u32, payload: &Payload) -> Upcast<Self> {
        let _ = (index, version, payload);
        Ok(None)
    }

    /// Decodes an event of one of the [`Event::RETIRED`] types; `None` if it is of no such type.
    ///
    /// # Errors
    /// Fails if the version is not known, or the payload does not fit.
    fn retired(name: &str, version: u32, payload: &Payload) -> Upcast<Self> {
        let _ = (name, version, payload);
        Ok(None)
    }

    /// Decodes a stored event: into one event as a rule, into several or none after a split.
    ///
    /// # Errors
    /// Fails if nothing has the name, if the stored version is newer than this code's, or if
    /// the payload does not fit.
    fn decode(name: &str, version: u32, payload: &Payload) -> Result<Decoded<Self>, DecodeError> {
        let Some(index) = Self::TYPES.iter().position(|kind| kind.is_named(name)) else {
            return Self::retired(name, version, payload)?.ok_or(DecodeError::UnknownType);
        };
        let supported = Self::TYPES[index].version;
        if version > supported {
            return Err(DecodeError::NewerVersion { supported });
        }
        if version < supported
            && let Some(upcast) = Self::upcast(index, version, payload)?
        {
            return Ok(upcast);
        }
        codec::decode(index, payload).map(Decoded::One).map_err(DecodeError::Payload)
    }
}

/// What an upcaster makes of a payload; `None` if it is not its business.
pub type Upcast<E> = Result<Option<Decoded<E>>, DecodeError>;

/// Reads a payload in an earlier shape.
///
/// # Errors
/// If the payload does not fit.
#[doc(hidden)]
pub fn read<T: DeserializeOwned>(payload: &Payload) -> Result<T, DecodeError> {
    serde_json::from_slice(payload.as_bytes()).map_err(DecodeError::Payload)
}
