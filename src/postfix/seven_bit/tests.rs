//! Messages with 8-bit text, for servers that take seven.

use super::*;

/// Feeds text whose lines end in `\n`; a `|` ends a piece within a line. Lines are never broken.
fn converted(text: &[u8]) -> String {
    let (mut lines, mut out) = (Lines::new(0), Vec::new());
    let mut seven_bit = SevenBit::new();
    for piece in text.split_inclusive(|octet| matches!(octet, b'\n' | b'|')) {
        match piece.split_last() {
            Some((b'\n', line)) => seven_bit.push(Text::Line, line, &mut lines, &mut out),
            Some((b'|', part)) => seven_bit.push(Text::Part, part, &mut lines, &mut out),
            _ => seven_bit.push(Text::Part, piece, &mut lines, &mut out),
        }
    }
    seven_bit.finish(&mut lines, &mut out);
    out.escape_ascii().to_string().replace("\\r\\n", "\n")
}

#[track_caller]
fn check(text: &[u8], expected: &str) {
    let found = converted(text);
    assert_eq!(found, expected, "\n{found}\n---\n{expected}");
}

#[test]
fn only_what_says_that_it_is_8_bit_is_encoded() {
    check(b"Subject: \xe9\n\n\xe9=\n", "Subject: \\xe9\n\n\\xe9=\n");
    check(b"Content-Transfer-Encoding: base64\n\nab=\n", "Content-Transfer-Encoding: base64\n\nab=\n");
    check(
        b"Content-Transfer-Encoding: 8bit\nX: y\n\n\xe9=\n",
        "X: y\nContent-Transfer-Encoding: quoted-printable\n\n=E9=3D\n",
    );
    check(b"\n\nContent-Transfer-Encoding: 8bit\n\xe9", "\n\nContent-Transfer-Encoding: 8bit\n\\xe9\n");
    check(b"", "");
}

#[test]
fn each_part_of_a_multipart_has_a_label_of_its_own() {
    check(
        b"content-type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: binary\n\n\xe9=\n--b\n\n\xe9=\n--b\n\
          Content-Transfer-Encoding: 8bit\n\n\xe9=\n--b--\n\xe9=\n",
        "content-type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\n\\xe9=\n--b\n\n\\xe9=\n--b\n\
         Content-Transfer-Encoding: quoted-printable\n\n=E9=3D\n--b--\n\\xe9=\n",
    );
}

#[test]
fn boundaries_count_while_their_multipart_lasts() {
    check(
        b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n\xe9\n--b\nContent-Transfer-Encoding: 8bit\n\n\xe9\n",
        "Content-Type: multipart/mixed; boundary=b\n\n--b--\n\\xe9\n--b\nContent-Transfer-Encoding: 8bit\n\n\\xe9\n",
    );
    // Somebody has chosen an empty one. Two hyphens alone are none, all the same.
    check(
        b"Content-Type: multipart/mixed; boundary=\"\"\n\n--\nContent-Transfer-Encoding: 8bit\n\n\xe9\n-- \n\
          Content-Transfer-Encoding: 8bit\n\n\xe9\n",
        "Content-Type: multipart/mixed; boundary=\\\"\\\"\n\n--\nContent-Transfer-Encoding: 8bit\n\n\\xe9\n-- \n\
         Content-Transfer-Encoding: quoted-printable\n\n=E9\n",
    );
}

#[test]
fn a_message_in_a_message_has_its_own_header() {
    check(
        b"Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nContent-Transfer-Encoding: 8bit\n\n\xe9\n",
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\n\
         Content-Transfer-Encoding: quoted-printable\n\n=E9\n",
    );
    // The header of one with international addresses has UTF-8, which a label of 7bit would belie. It may be encoded as
    // a whole (RFC 6532 section 3.7).
    check(
        b"Content-Type: message/global\nContent-Transfer-Encoding: 8bit\n\nSubject: \xe9\n\n\xe9\n",
        "Content-Type: message/global\nContent-Transfer-Encoding: quoted-printable\n\nSubject: =E9\n\n=E9\n",
    );
    // One that is cut into parts has no header that could be read.
    check(
        b"Content-Type: message/partial\nContent-Transfer-Encoding: 8bit\n\nContent-Transfer-Encoding: 8bit\n\xe9\n",
        "Content-Type: message/partial\nContent-Transfer-Encoding: quoted-printable\n\n\
         Content-Transfer-Encoding: 8bit\n=E9\n",
    );
}

#[test]
fn a_header_that_ends_in_garbage_keeps_its_label_true() {
    check(
        b"Content-Transfer-Encoding: 8bit\ngarbage \xe9\n",
        "Content-Transfer-Encoding: quoted-printable\n\ngarbage =E9\n",
    );
    check(
        b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\ngarbage \xe9\n--b\ngarbage \xe9\n",
        "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\ngarbage =E9\n--b\n\
         garbage \\xe9\n",
    );
    // Nothing in 8 bits is left over, neither before the parts nor in them, and not in what should be a message.
    check(
        b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\ngarbage\n\n\xe9\n--b\n\
          Content-Transfer-Encoding: 8bit\n\n\xe9\n--b\nContent-Type: message/rfc822\n\
          Content-Transfer-Encoding: 8bit\ngarbage \xe9\n--b--\n",
        "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\ngarbage\n\n=E9\n--b\n\
         Content-Transfer-Encoding: quoted-printable\n\n=E9\n--b\nContent-Type: message/rfc822\n\
         Content-Transfer-Encoding: 7bit\ngarbage =E9\n--b--\n",
    );
}

#[test]
fn text_in_pieces_and_without_an_end_is_one_line() {
    check(b"Content-Trans|fer-Encoding: 8bit\n\n\xe9\n", "\nContent-Transfer-Encoding: 8bit\n\n\\xe9\n");
    check(
        b"Content-Transfer-Encoding: 8|bit\nX: |y|\n\n\xe9|\xe9 |",
        "X: y\nContent-Transfer-Encoding: quoted-printable\n\n=E9=E9=20\n",
    );
    // A boundary does not begin within a line.
    check(
        b"Content-Type: multipart/mixed; boundary=b\n\nx|--b\nContent-Transfer-Encoding: 8bit\n\n\xe9\n",
        "Content-Type: multipart/mixed; boundary=b\n\nx--b\nContent-Transfer-Encoding: 8bit\n\n\\xe9\n",
    );
    check(b"Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: quoted-printable\n");
    check(b"Content-Transfer-Encoding: 8bit\nX: y", "X: y\nContent-Transfer-Encoding: quoted-printable\n");
    check(b"Content-Transfer-Encoding: 7bit|\n", "Content-Transfer-Encoding: 7bit\n");
    check(b"Content-Transfer-Encoding: 7bit", "Content-Transfer-Encoding: 7bit\n");
}

#[test]
fn encoding_makes_no_boundary() {
    let header = "Content-Type: multipart/mixed; boundary=b\n\n--b\n";
    let x = "x".repeat(73);
    check(
        format!("{header}Content-Transfer-Encoding: 8bit\n\n{x}--b\n{x}--c\n").as_bytes(),
        &format!("{header}Content-Transfer-Encoding: quoted-printable\n\n{x}=\n=2D-b\n{x}=\n--c\n"),
    );
}

#[test]
fn an_endless_field_and_endless_depth_take_no_memory() {
    let mut text = b"Content-Transfer-Encoding: 8bit\n".to_vec();
    (0..100_000).for_each(|_| text.extend(b" (folded)\n"));
    text.extend(b"X: y\n\n\xe9\n");
    check(&text, "X: y\nContent-Transfer-Encoding: quoted-printable\n\n=E9\n");
    let other = text.escape_ascii().to_string().replace("8bit", "7bit").replace("\\n", "\n");
    let text = other.replace("\\xe9", "=");
    check(text.as_bytes(), &text);

    let nested = |depth: usize| {
        let open = |at| format!("Content-Type: multipart/mixed; boundary=b{at:03}x\n\n--b{at:03}x\n");
        let mut text: String = (0..depth).map(open).collect();
        text.push_str("Content-Transfer-Encoding: 8bit\n\n=\n");
        converted(text.as_bytes())
    };
    assert!(nested(DEPTH_MAX).ends_with("quoted-printable\n\n=3D\n"));
    assert!(nested(DEPTH_MAX + 1).ends_with("8bit\n\n=\n"));
}
