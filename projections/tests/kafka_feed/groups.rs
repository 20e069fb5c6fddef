//! Partitions shared out among the members of a group.

use std::{collections::BTreeSet, time::Duration};

use annals_projections::kafka::{Change, FeedError, Group, Partitions, Revoked};

use crate::support::{Context, PATIENCE};

const LOAN: &[&str] = &["loan"];

/// A member that gives up at once what it is told to.
struct Member {
    group: Group,
    owned: BTreeSet<i32>,
    owns_all: bool,
    /// How often something was taken from it.
    revocations: usize,
}

fn join(context: &Context, categories: &[&str]) -> annals_projections::kafka::Join {
    let categories: Vec<_> = categories.iter().map(|category| (*category).to_owned()).collect();
    context.source().group("overview", &categories).session_timeout(Duration::from_secs(6))
}

impl Member {
    fn of(group: Group) -> Self {
        Self { group, owned: BTreeSet::new(), owns_all: false, revocations: 0 }
    }

    async fn change(&mut self) {
        match self.group.next().await.unwrap() {
            Change::Assigned(Partitions::These(numbers)) => self.owned.extend(numbers),
            Change::Assigned(Partitions::All) => self.owns_all = true,
            Change::Revoked(revoked) => {
                self.revocations += 1;
                self.give_up(revoked);
            }
            other => panic!("{other:?}"),
        }
    }

    fn give_up(&mut self, revoked: Revoked) {
        match &revoked.partitions {
            Partitions::These(numbers) => self.owned.retain(|number| !numbers.contains(number)),
            _ => self.owns_all = false,
        }
        revoked.done();
    }
}

/// Lets members follow the group until something is so, and stays so for a moment.
async fn until(members: &mut [&mut Member], what: impl Fn(&[&mut Member]) -> bool) {
    let settling = async {
        loop {
            let next = futures::future::select_all(
                members.iter_mut().map(|member| Box::pin(member.change())),
            );
            let changed = tokio::time::timeout(Duration::from_millis(500), next).await.is_ok();
            if !changed && what(members) {
                return;
            }
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settling).await;
    if settled.is_err() {
        let owned: Vec<_> = members.iter().map(|member| &member.owned).collect();
        panic!("it does not settle: {owned:?}");
    }
}

/// All partitions are owned, each once, and members have about equally many.
fn is_shared_out(members: &[&mut Member], count: i32) -> bool {
    let all: Vec<_> = members.iter().flat_map(|member| &member.owned).copied().collect();
    let sizes = members.iter().map(|member| member.owned.len());
    all.len() == count as usize
        && all.iter().collect::<BTreeSet<_>>().len() == all.len()
        && sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_partitions_out_as_they_come_and_go() {
    let context = Context::new().await;
    context.create("loan", 6).await;
    let mut a = Member::of(join(&context, LOAN).join().unwrap());
    until(&mut [&mut a], |members| is_shared_out(members, 6)).await;
    let mut b = Member::of(join(&context, LOAN).join().unwrap());
    until(&mut [&mut a, &mut b], |members| is_shared_out(members, 6)).await;
    let before = a.owned.clone();
    let mut c = Member::of(join(&context, LOAN).join().unwrap());
    until(&mut [&mut a, &mut b, &mut c], |members| is_shared_out(members, 6)).await;
    // They move one by one: nobody loses what it keeps.
    assert!(a.owned.is_subset(&before), "{before:?} became {:?}", a.owned);
    b.group.leave().await;
    until(&mut [&mut a, &mut c], |members| is_shared_out(members, 6)).await;
    drop(c);
    until(&mut [&mut a], |members| is_shared_out(members, 6)).await;
}

/// The partitions that a member that has all of them is told to give up when another one comes.
async fn revoked(context: &Context, handover: Duration) -> (Group, Group, Revoked) {
    context.create("loan", 2).await;
    let mut a = join(context, LOAN).handover(handover).join().unwrap();
    let assigned = tokio::time::timeout(PATIENCE, a.next()).await.unwrap().unwrap();
    assert!(matches!(assigned, Change::Assigned(Partitions::These(two)) if two.len() == 2));
    let b = join(context, LOAN).join().unwrap();
    let revoked = tokio::time::timeout(PATIENCE, a.next()).await.unwrap().unwrap();
    let Change::Revoked(revoked) = revoked else { panic!("{revoked:?}") };
    assert!(matches!(&revoked.partitions, Partitions::These(one) if one.len() == 1));
    assert!(!revoked.is_lost);
    (a, b, revoked)
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_to_others_once_they_are_given_up() {
    let context = Context::new().await;
    let (_a, mut b, revoked) = revoked(&context, Duration::from_secs(60)).await;
    // A member hears of a change with its next heartbeat only.
    let early = tokio::time::timeout(Duration::from_secs(4), b.next()).await;
    assert!(early.is_err(), "{early:?}");
    revoked.done();
    let assigned = tokio::time::timeout(PATIENCE, b.next()).await.unwrap().unwrap();
    assert!(matches!(assigned, Change::Assigned(Partitions::These(one)) if one.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_takes_no_longer_than_it_may() {
    let context = Context::new().await;
    let (_a, mut b, revoked) = revoked(&context, Duration::from_millis(300)).await;
    let assigned = tokio::time::timeout(PATIENCE, b.next()).await.unwrap().unwrap();
    assert!(matches!(assigned, Change::Assigned(_)));
    drop(revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_comes_back_finds_its_partitions() {
    let context = Context::new().await;
    context.create("loan", 4).await;
    let instance = |name: &str| Member::of(join(&context, LOAN).instance(name).join().unwrap());
    let (mut a, mut b) = (instance("a"), instance("b"));
    until(&mut [&mut a, &mut b], |members| is_shared_out(members, 4)).await;
    let (before, revocations) = (a.owned.clone(), b.revocations);
    a.group.leave().await;
    let mut a = instance("a");
    until(&mut [&mut a, &mut b], |members| is_shared_out(members, 4)).await;
    assert_eq!(a.owned, before);
    assert_eq!(b.revocations, revocations, "nothing was moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_number_is_one_members_in_all_topics() {
    let context = Context::new().await;
    context.create("loan", 4).await;
    context.create("card", 4).await;
    let categories = &["loan", "card"];
    let mut a = Member::of(join(&context, categories).join().unwrap());
    let mut b = Member::of(join(&context, categories).join().unwrap());
    until(&mut [&mut a, &mut b], |members| is_shared_out(members, 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_has_all_until_there_is_a_topic() {
    let context = Context::new().await;
    let mut a = Member::of(join(&context, LOAN).join().unwrap());
    let mut b = Member::of(join(&context, LOAN).join().unwrap());
    until(&mut [&mut a, &mut b], |members| members[0].owns_all != members[1].owns_all).await;
    context.create("loan", 4).await;
    until(&mut [&mut a, &mut b], |members| {
        is_shared_out(members, 4) && members.iter().all(|member| !member.owns_all)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dealt_with_is_known_to_kafkas_tools() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.create("card", 2).await;
    context.publish(&[("loan", 0, 1), ("card", 1, 2), ("card", 1, 3)]).await;
    let mut a = Member::of(join(&context, &["loan", "card"]).join().unwrap());
    until(&mut [&mut a], |members| is_shared_out(members, 2)).await;
    let offsets = [(context.topic("loan"), 0, 1), (context.topic("card"), 1, 2)];
    a.group.commit(&offsets.clone().into_iter().collect());
    let committed = |partition: &(String, i32, i64)| {
        context.committed("overview", &partition.0, partition.1) == Some(partition.2)
    };
    let noted = async {
        while !offsets.iter().all(committed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noted).await.unwrap();
    // What came since is noted at the end.
    let last = (context.topic("card"), 1, 3);
    a.group.commit(&[last.clone()].into_iter().collect());
    a.group.leave().await;
    assert!(committed(&last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_a_context_that_nobody_publishes_is_refused() {
    let context = Context::unpublished();
    let mut group = join(&context, LOAN).join().unwrap();
    for _ in 0..2 {
        let next = tokio::time::timeout(PATIENCE, group.next()).await.unwrap();
        assert!(matches!(next, Err(FeedError::NotPublished { .. })), "{next:?}");
    }
}
