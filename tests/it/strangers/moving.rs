//! Files that change while they are claimed and read.
//!
//! - Owns: writes through a descriptor that was kept open, renames and unlinks beside the agent's.
//! - Leaves to others: files that hold still (`incoming`, `heads`).
//! - Always true: what was read in one pass is what is delivered, to whom that pass has named; each file ends once, as
//!   one message or as one file in `corrupt/`.

use std::collections::BTreeSet;

use super::{Scene, soon};
use crate::common::long::short_or_long;
use crate::common::mailbox::header;

/// Writes two messages of one length in turns, for one and for another recipient, over files that stand ready.
const FLIPS: &str = "
count = int(sys.stdin.read())
def version(number, who):
    return queue_file(f'{who}@example.org', f'Subject: {number} for {who}\\r\\n\\r\\n' + f'{who} ' * 2000 + '\\r\\n')
for number in range(count):
    fd = os.open(INCOMING + f'.flip{number}', os.O_CREAT | os.O_RDWR, 0o640)
    both = [version(number, 'left'), version(number, 'rite')]
    os.write(fd, both[0])
    os.rename(INCOMING + f'.flip{number}', INCOMING + f'flip{number}')
    until = time.time() + 0.02
    turn = 0
    while time.time() < until:
        turn += 1
        os.pwrite(fd, both[turn % 2], 0)
        if number % 3 == 1:
            os.ftruncate(fd, turn * 7 % len(both[0])); os.ftruncate(fd, len(both[0]))
        if number % 3 == 2 and turn % 16 == 0:
            os.pwrite(fd, b'more' * 1000, len(both[0]))
    # It has been claimed by now, or will be as it is.
    os.ftruncate(fd, 0); os.pwrite(fd, both[1], 0)
";

#[test]
fn what_was_read_is_what_is_delivered_however_often_it_is_written() {
    let Some(scene) = Scene::new("") else { return };
    let count: usize = short_or_long(60, 2000);
    let output = crate::common::agent::run(
        &mut scene.python(super::MALLORY, super::MALLORY, FLIPS),
        count.to_string().as_bytes(),
    );
    scene.accomplished(&output, FLIPS);
    scene.anns_mail_arrives("beside moving files");
    let ended = || {
        let delivered =
            scene.server.mail_of("left@example.org").len() + scene.server.mail_of("rite@example.org").len();
        (delivered + scene.files_in("corrupt").len() == count && scene.files_in("incoming").is_empty())
            .then_some(delivered)
    };
    let delivered = soon("the end of each file", ended);
    // A write may fall between two reads: then the owner has torn what is the owner's. It goes to one of the owner's
    // recipients or nowhere, and never with octets that nobody has written.
    for who in ["left", "rite"] {
        for mail in scene.server.mail_of(&format!("{who}@example.org")) {
            assert!(header(&mail, "Subject").is_some_and(|subject| subject.contains(" for ")));
            assert!(!mail.contains(&0xff));
        }
    }
    assert_eq!(scene.server.all_mail().len(), delivered + 1);
    assert_eq!(
        scene.site.wait_for_lines(delivered + 1, &["status=sent"], crate::common::agent::SOON).len(),
        delivered + 1
    );
    scene.ends_well();
}

/// The claim does not shut the owner out of the file; what is written after it is written into the void.
#[test]
fn what_is_written_after_the_claim_is_nobodys_mail() {
    let Some(scene) = Scene::new("") else { return };
    scene.attack(
        "kept = []
for number in range(20):
    fd = os.open(INCOMING + f'.late{number}', os.O_CREAT | os.O_RDWR, 0o640)
    os.write(fd, queue_file(content=f'Subject: late {number}\\r\\n\\r\\n'))
    os.rename(INCOMING + f'.late{number}', INCOMING + f'late{number}')
    while os.path.exists(INCOMING + f'late{number}'): time.sleep(0.0005)
    # Claimed, and perhaps not copied yet; it cannot be found by any name.
    denied(os.link, f'/proc/self/fd/{fd}', INCOMING + f'late{number}', errors=REFUSALS + (errno.ENOENT, errno.EXDEV))
    kept.append(fd)
    while os.fstat(fd).st_nlink: time.sleep(0.0005)
    os.pwrite(fd, queue_file('ann@example.org', 'Subject: EVIL\\r\\n\\r\\n'), 0)",
    );
    scene.anns_mail_arrives("beside late writes");
    let mail = soon("Mallory's mail", || {
        Some(scene.server.mail_of("mallory@example.org")).filter(|mail| mail.len() == 20)
    });
    let subjects: BTreeSet<_> = mail.iter().filter_map(|mail| header(mail, "Subject")).collect();
    assert_eq!(subjects.len(), 20, "{subjects:?}");
    assert_eq!(scene.server.mail_of("ann@example.org").len(), 1);
    scene.ends_well();
}

/// Renames one's own files over each other, away and back, swaps them with links and directories, under the agent's eyes.
const RENAMES: &str = "
seconds = float(sys.stdin.read())
until = time.time() + seconds
libc = ctypes.CDLL(None, use_errno=True)
def quietly(what, *arguments):
    try: what(*arguments)
    except OSError: pass
def over():
    number = 0
    while time.time() < until:
        number += 1
        drop(f'r{number % 7}', queue_file(content=f'Subject: over {number}\\r\\n\\r\\n'))
        quietly(os.rename, INCOMING + f'r{number % 7}', INCOMING + '.away')
        quietly(os.rename, INCOMING + '.away', INCOMING + f's{number % 5}')
def swap():
    while time.time() < until:
        quietly(os.symlink, '/etc/passwd', INCOMING + '.link')
        quietly(os.mkdir, INCOMING + '.directory')
        drop('.real', queue_file(content='Subject: swapped\\r\\n\\r\\n'))
        quietly(os.rename, INCOMING + '.real', INCOMING + 'swapped')
        for other in ('.link', '.directory'):
            libc.renameat2(-100, (INCOMING + 'swapped').encode(), -100, (INCOMING + other).encode(), 2)
def unlink():
    while time.time() < until:
        for name in ('r1', 's1', 'swapped'):
            quietly(os.unlink, INCOMING + name)
        quietly(os.rmdir, INCOMING + 'swapped')
threads = [threading.Thread(target=target) for target in (over, swap, unlink)]
say('ready')
for thread in threads: thread.start()
for thread in threads: thread.join()
";

#[test]
fn renames_beside_the_claim_lose_and_double_nobodys_mail() {
    let Some(scene) = Scene::new("") else { return };
    let seconds = short_or_long("1.5", "20");
    let mut command = scene.python(super::MALLORY, super::MALLORY, RENAMES);
    let attack = std::thread::scope(|scope| {
        let attack = scope.spawn(|| crate::common::agent::run(&mut command, seconds.as_bytes()));
        for number in 0..short_or_long(4, 40) {
            scene.anns_mail_arrives(&format!("among renames {number}"));
        }
        attack.join().unwrap()
    });
    scene.accomplished(&attack, RENAMES);
    scene.anns_mail_arrives("after renames");
    assert_eq!(scene.server.mail_of("ann@example.org").len(), short_or_long(5, 41));
    // Of Mallory's each came once at most, and none is half a file of another.
    let mut subjects: Vec<_> = scene
        .server
        .mail_of("mallory@example.org")
        .iter()
        .filter_map(|mail| header(mail, "Subject"))
        .collect();
    subjects.retain(|subject| subject.starts_with("over"));
    let distinct: BTreeSet<_> = subjects.iter().collect();
    assert!(!subjects.is_empty() && distinct.len() == subjects.len(), "{subjects:?}");
    for mail in scene.server.all_mail() {
        assert!(!String::from_utf8_lossy(&mail).contains("root:"));
    }
    scene.ends_well();
}
