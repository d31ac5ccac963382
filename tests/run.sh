#!/usr/bin/env bash
# Installs what the tests need, then runs everything CI runs:
#
#   tests/run.sh           format, lints, all tests, documentation, shell scripts, man pages
#   tests/run.sh --fast    the same without the tests against real mail servers and callers of sendmail
#   tests/run.sh --long    the same with the long forms of the tests that have one (kills, load)
#
# As root it installs what is missing: Debian packages by apt-get, cargo-nextest by cargo. It starts no system
# service. As anybody else it installs nothing and says what was left out and how to get it.
#
# Environment (not LASTMILE_…: the program under test refuses such variables unless they are its keys):
#   TESTS_INSTALL=yes|no    install what is missing (default: yes for root, no for others)
#   TESTS_LIMIT=3600        seconds for the whole run (with --long 14400); what still runs then is killed and the run has failed
#   TESTS_STRICT=yes|no     a check that could not run is a failure (default: yes for root, no for others)
#
# Exit code: 0 all passed, 1 a check failed (or was left out, when strict), 2 bad usage, 124 out of time.
set -euo pipefail

if [[ -z ${TESTS_ARE_BOUNDED:-} ]]; then
    export TESTS_ARE_BOUNDED=yes
    case " $* " in *' --long '*) limit=14400 ;; *) limit=3600 ;; esac
    exec timeout --kill-after=30 "${TESTS_LIMIT:-$limit}" "${BASH_SOURCE[0]}" "$@" </dev/null
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Debian keeps servers in sbin; a bare CI machine may not have cargo's own directory in its path.
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

fast=no
long=no
profile=default
case "${1:-}" in
    '') ;;
    --fast) fast=yes ;;
    --long) export TESTS_LONG=yes; profile=long; long=yes ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

if [[ $(id -u) == 0 ]]; then default=yes; else default=no; fi
install=${TESTS_INSTALL:-$default}
strict=${TESTS_STRICT:-$default}

failed=()
left_out=()

# check NAME COMMAND…: runs one check to its end; a failure does not keep the next ones from running.
check() {
    local name=$1 start=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    if "$@"; then
        printf -- '--- %s: passed in %ds\n' "$name" $((SECONDS - start))
    else
        printf -- '--- %s: FAILED (%s)\n' "$name" "$*"
        failed+=("$name")
    fi
}

leave_out() {
    printf '\n=== left out: %s\n' "$1"
    left_out+=("$1")
}

have() {
    local path
    path=$(type -P "$1") && [[ -x $path ]]
}

have_postfix() { [[ -x /usr/sbin/postdrop && -x /usr/sbin/sendmail ]]; }
have_git_email() { have git && [[ -e $(git --exec-path)/git-send-email ]]; }
have_perl_mail() { have perl && perl -MMail::Address -MJSON::PP -e1 2>/dev/null; }
have_symfony() { [[ -r /usr/share/php/Symfony/Component/Mailer/autoload.php ]]; }
have_dovecot() { have dovecot && [[ -x /usr/lib/dovecot/lmtp || -x /usr/libexec/dovecot/lmtp ]]; }

# Cyrus's lmtpd without its IMAP server, which would put Dovecot's out.
have_cyrus() { [[ -x /usr/lib/cyrus/bin/lmtpd ]] && have saslpasswd2; }

# Debian packages whose program is missing, one a line.
missing_packages() {
    have cc || printf '%s\n' gcc libc6-dev
    have mandoc || echo mandoc
    have mutt || echo mutt
    have mkfs.ext4 || echo e2fsprogs
    have mount || echo mount
    [[ -d /usr/share/zoneinfo ]] || echo tzdata
    have setpriv || echo util-linux
    have python3 || echo python3
    have pflogsumm || echo pflogsumm
    have shellcheck || echo shellcheck
    [[ $long == no ]] || have mkfs.xfs || echo xfsprogs
    [[ $long == no ]] || have mkfs.btrfs || echo btrfs-progs
    [[ $fast == yes ]] && return
    have_dovecot || printf '%s\n' dovecot-core dovecot-lmtpd
    have_cyrus || printf '%s\n' cyrus-common libsasl2-modules sasl2-bin
    # Programs that call sendmail, and other sendmails. Some of the first ask for a mail server, which is postfix here.
    have_git_email || echo git-email
    have_perl_mail || printf '%s\n' perl libmailtools-perl
    have s-nail || echo s-nail
    have bsd-mailx || echo bsd-mailx
    have php || echo php-cli
    have_symfony || echo php-symfony-mailer
    have cron || echo cron
    have atd || echo at
    have msmtp || echo msmtp
    have_postfix || has_other_mail_server || echo postfix
}

# A machine has one mail server; whose it is, nobody replaces it for the sake of a test.
has_other_mail_server() {
    have dpkg-query && dpkg-query -W -f '${db:Status-Status} ${Provides}\n' | grep -q '^installed .*mail-transport-agent'
}

# Packages' scripts start their services unless this file says no; the tests start their own servers.
forbid_services() {
    [[ -e /usr/sbin/policy-rc.d ]] && return
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    [[ ${#packages[@]} == 0 ]] && return
    if [[ $install != yes ]] || ! have apt-get; then
        echo "missing Debian packages: ${packages[*]} (apt-get install ${packages[*]})"
        return
    fi
    forbid_services
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update || echo "apt-get update failed; trying with the lists at hand"
    apt-get -qy -o DPkg::Lock::Timeout=120 install --no-install-recommends --no-remove "${packages[@]}" || echo "apt-get install failed"
}

install_cargo_tools() {
    local component
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        if [[ $install == yes ]] && have rustup; then
            rustup component add "$component" || true
        else
            echo "missing: rustup component add $component"
        fi
    done
    have cargo-nextest && return
    if [[ $install == yes ]]; then
        timeout 1200 cargo install --locked cargo-nextest || echo "cargo-nextest could not be installed"
    else
        echo "missing: cargo install --locked cargo-nextest (cargo test does its work now)"
    fi
}

run_tests() {
    local peers=$1
    if have cargo-nextest; then
        local filter='all()'
        [[ $peers == yes ]] || filter='not binary(peers)'
        cargo nextest run --locked --no-fail-fast --profile "$profile" -E "$filter"
    else
        local targets=(--lib --bins --test it)
        [[ $peers == yes ]] && targets+=(--test peers)
        cargo test --locked --no-fail-fast "${targets[@]}"
    fi
}

# The same cases for other programs that are called as ours is (TESTS_SENDMAIL=PROGRAM, default: ours).
run_originals() {
    if have cargo-nextest; then
        TESTS_SENDMAIL=$1 cargo nextest run --locked --no-fail-fast --profile "$profile" -E 'binary(it) and test(/^sendmail::originals/)'
    else
        TESTS_SENDMAIL=$1 cargo test --locked --no-fail-fast --test it sendmail::originals
    fi
}

shell_scripts() { grep -rIlE -m1 '^#! ?/(usr/)?bin/(env )?(ba|da)?sh' .ci etc packaging tests 2>/dev/null; }

lint_shell_scripts() {
    local scripts
    mapfile -t scripts < <(shell_scripts)
    shellcheck "${scripts[@]}"
}

if ! have cargo; then
    echo "tests/run.sh: there is no cargo; install Rust 1.95 or later (https://rustup.rs)" >&2
    exit 1
fi
install_packages
install_cargo_tools

peers=yes
if [[ $fast == yes ]]; then
    peers=no
    echo "left out by --fast: tests against a real Dovecot, with callers of sendmail, and of other sendmails"
elif ! have_dovecot; then
    peers=no
    leave_out "tests against a real Dovecot (apt-get install dovecot-core dovecot-lmtpd)"
fi

# Tests that miss one of these pass without having looked, and say so where nobody reads it.
for program in mutt pflogsumm python3 setpriv; do
    have "$program" || leave_out "tests that need $program"
done
if [[ $peers == yes ]]; then
    for program in atd bsd-mailx cron msmtp php s-nail; do
        have "$program" || leave_out "calls of sendmail by $program"
    done
    have_cyrus || leave_out "logins to a real Cyrus (apt-get install cyrus-common libsasl2-modules sasl2-bin)"
    have_git_email || leave_out "calls of sendmail by git send-email (apt-get install git-email)"
    have_perl_mail || leave_out "calls of sendmail by git send-email and Sympa (apt-get install perl libmailtools-perl)"
    have_symfony || leave_out "calls of sendmail by Symfony Mailer (apt-get install php-symfony-mailer)"
    tests/peers/callers/sympa.sh || leave_out "calls of sendmail by Sympa"
fi
if [[ $(id -u) == 0 ]] && ! have mkfs.ext4; then leave_out "power losses (apt-get install e2fsprogs)"; fi

check "format" cargo fmt --check
check "lints" cargo clippy --all-targets --locked -- -D warnings
check "tests" run_tests "$peers"
if [[ $fast == no ]]; then
    if have_postfix; then
        check "cases of the sendmail command, with Postfix's" run_originals /usr/sbin/sendmail
    else
        leave_out "cases of the sendmail command, with Postfix's (apt-get install postfix, where no other mail server is)"
    fi
    if have msmtp; then
        check "cases of the sendmail command, with msmtp" run_originals "$(type -P msmtp)"
    else
        leave_out "cases of the sendmail command, with msmtp (apt-get install msmtp)"
    fi
fi
check "examples in the documentation" cargo test --locked --doc
# Private items are documented too, for those who read the source; so links to them lead somewhere.
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" check "documentation" cargo doc --no-deps --locked --document-private-items
if have shellcheck; then
    check "shell scripts" lint_shell_scripts
else
    leave_out "shell scripts (apt-get install shellcheck)"
fi
if ! compgen -G 'packaging/man/*' >/dev/null; then
    printf '\n=== man pages: there are none in packaging/man\n'
elif have mandoc; then
    check "man pages" mandoc -T lint -W warning packaging/man/*
else
    leave_out "man pages (apt-get install mandoc)"
fi

printf '\n=== %d s' "$SECONDS"
for name in ${left_out[@]+"${left_out[@]}"}; do printf '\nleft out: %s' "$name"; done
for name in ${failed[@]+"${failed[@]}"}; do printf '\nFAILED: %s' "$name"; done
if [[ ${#failed[@]} -gt 0 || ($strict == yes && ${#left_out[@]} -gt 0) ]]; then
    printf '\ntests/run.sh: failed\n'
    exit 1
fi
printf '\ntests/run.sh: all that ran has passed\n'
