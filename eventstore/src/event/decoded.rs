//! What becomes of one stored event: as a rule one event, and after a split several, or none.

use std::{iter::FusedIterator, vec};

/// What a stored event is read as.
///
/// Nearly every stored event is one event, which takes no allocation. One that was split is several,
/// in their order, and one that was dropped is none.
///
/// ```
/// use annals_eventstore::Decoded;
///
/// let total: i64 = Decoded::One(3).into_iter().chain(Decoded::Many(vec![1, 2])).sum();
/// assert_eq!(total, 6);
/// assert_eq!(Decoded::<i64>::Many(vec![]).one(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<E> {
    /// One event.
    One(E),
    /// Several events, in their order, or none.
    Many(Vec<E>),
}

impl<E> Decoded<E> {
    /// The event, if it is exactly one.
    pub fn one(self) -> Option<E> {
        match self {
            Self::One(event) => Some(event),
            Self::Many(mut events) if events.len() == 1 => events.pop(),
            Self::Many(_) => None,
        }
    }

    /// The events, in their order.
    pub fn as_slice(&self) -> &[E] {
        match self {
            Self::One(event) => std::slice::from_ref(event),
            Self::Many(events) => events,
        }
    }

    /// Something else for each event.
    ///
    /// # Errors
    /// The first failure.
    pub fn try_map<F, X>(self, mut map: impl FnMut(E) -> Result<F, X>) -> Result<Decoded<F>, X> {
        Ok(match self {
            Self::One(event) => Decoded::One(map(event)?),
            Self::Many(events) => {
                Decoded::Many(events.into_iter().map(map).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// The events of a [`Decoded`], in their order.
#[derive(Clone, Debug)]
pub struct DecodedIter<E>(Iter<E>);

#[derive(Clone, Debug)]
enum Iter<E> {
    One(Option<E>),
    Many(vec::IntoIter<E>),
}

impl<E> IntoIterator for Decoded<E> {
    type Item = E;
    type IntoIter = DecodedIter<E>;

    fn into_iter(self) -> DecodedIter<E> {
        DecodedIter(match self {
            Self::One(event) => Iter::One(Some(event)),
            Self::Many(events) => Iter::Many(events.into_iter()),
        })
    }
}

impl<E> Iterator for DecodedIter<E> {
    type Item = E;

    fn next(&mut self) -> Option<E> {
        match &mut self.0 {
            Iter::One(event) => event.take(),
            Iter::Many(events) => events.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = match &self.0 {
            Iter::One(event) => usize::from(event.is_some()),
            Iter::Many(events) => events.len(),
        };
        (length, Some(length))
    }
}

impl<E> ExactSizeIterator for DecodedIter<E> {}
impl<E> FusedIterator for DecodedIter<E> {}
