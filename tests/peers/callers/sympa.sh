#!/usr/bin/env bash
# Fetches Sympa's own code and the Perl modules that sending mail needs, as Debian packages, and unpacks them into a
# directory. Nothing is installed: no script of a package runs, and no database, web server or daemon comes along, as
# they would with the package's own dependencies.
#
#   tests/peers/callers/sympa.sh [DIRECTORY]     default: target/sympa, where the tests look
#
# What is there already stays. Needs apt-get, dpkg-deb and perl; root only where the package lists are missing or
# old.
# Exit code: 0 the code is there, 1 it cannot be had.
set -euo pipefail

packages=(
    sympa
    libclass-singleton-perl libfile-nfslock-perl libintl-perl libmailtools-perl libmime-charset-perl
    libmime-encwords-perl libmime-tools-perl libtimedate-perl liburi-perl
)

directory=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/target/sympa}
if [[ -d $directory ]]; then
    exit 0
fi
for program in apt-get dpkg-deb perl; do
    if ! type -P "$program" >/dev/null; then
        echo "Sympa's code cannot be fetched: there is no $program" >&2
        exit 1
    fi
done

mkdir -p "$(dirname "$directory")"
unfinished=$(mktemp -d "$directory.XXXXXX")
trap 'rm -rf "$unfinished"' EXIT
cd "$unfinished"
# As root, apt-get would hand the download to a user who may not write here.
download() { apt-get -q -o APT::Sandbox::User=root download "${packages[@]}"; }
# The package lists may be missing or old; only root may fetch them.
if ! download && ! { [[ $(id -u) == 0 ]] && apt-get -q update && download; }; then
    echo "Sympa's code cannot be fetched: apt-get download failed (are the package lists up to date?)" >&2
    exit 1
fi
for package in *.deb; do
    dpkg-deb -x "$package" root
done
# The modules and the defaults of the configuration; the rest of the packages is for the web and for people.
mkdir code
mv root/usr/share/sympa/lib root/usr/share/sympa/default root/usr/share/perl5 code
chmod 755 code
mv -T code "$directory"
