# Sympa sends mail: its own code takes messages through its outgoing spool to its mailer, which calls the program that
# sympa.conf names.
#
#   perl sympa.pl CODE SYMPA.CONF <MESSAGES
#
# CODE is the directory that sympa.sh has made. MESSAGES is a JSON array of objects:
#   message      path of a file: the message as it came to the list, without an envelope
#   recipients   their addresses
#   list         name of a list below Sympa's home; without it the message is the service's own
#   sender       the envelope sender, "<>" for the null sender; without it Sympa takes the list's or the service's
#   tracking     true: delivery is tracked, recipient by recipient, with delivery status notifications
# Sympa's log goes to standard error. On standard output is how many packets its bulk workflow has taken. Exit code: 0
# where that ran to its end, whatever became of the mail: as in real life, only Sympa's log and its spool tell.
#
# Real is everything that mail goes through: reading sympa.conf and the list's configuration, parsing and serializing the
# message, cutting the recipients into packets, the spool, the bulk workflow, the mailer's command line, its pipe, its
# waiting for the child and its log lines. Not real:
# - The database: there is none. The number that tracking would have given to the recipient is always 1234.
# - Accounts: files stay ours instead of belonging to the user "sympa".
# - syslog: lines go to standard error alone.
# - Modules that sending never calls (web pages, templates, HTML, XML, dates, the database): empty. A call of one ends
#   this program with its name.

use strict;
use warnings;

use JSON::PP ();

my ($code, $config);

BEGIN {
    ($code, $config) = @ARGV;
    unshift @INC, "$code/lib", "$code/perl5";

    for my $module (
        qw(CGI::Util DateTime DateTime::Format::Mail DBI File::Copy::Recursive HTML::Entities HTML::FormatText
        HTML::Parser HTML::StripScripts::Parser HTML::TreeBuilder IO::Scalar Net::CIDR Template Text::LineFold
        Unicode::GCString XML::LibXML)
    ) {
        (my $file = "$module.pm") =~ s{::}{/}g;
        $INC{$file} = 'empty';
        no strict 'refs';
        *{"${module}::AUTOLOAD"} = sub { die "empty module called: ${\"${module}::AUTOLOAD\"}\n" };
    }

    # Constants are built into code as it is compiled: so these change first.
    require Sympa::Constants;
    no warnings 'redefine';
    *Sympa::Constants::USER       = sub () {''};
    *Sympa::Constants::GROUP      = sub () {''};
    *Sympa::Constants::DEFAULTDIR = sub () {"$code/default"};
}

use Conf;
use Sympa::List;
use Sympa::Log;
use Sympa::Message;
use Sympa::Process;
use Sympa::Spindle::ProcessOutgoing;
use Sympa::Spool::Outgoing;

{
    no warnings 'redefine';
    *Sympa::DatabaseManager::instance                  = sub {undef};
    *Sympa::Tracking::find_notification_id_by_message = sub {1234};
    *Sys::Syslog::syslog                               = sub {1};
}

my $log = Sympa::Log->instance;
$log->{log_to_stderr} = 'all';
Conf::load($config, 'no database') or die "Sympa does not take $config\n";

my $spool = Sympa::Spool::Outgoing->new;
for my $posting (@{JSON::PP->new->utf8->decode(do { local $/; <STDIN> })}) {
    my $domain  = $Conf::Conf{domain};
    my $context = $domain;
    if (defined $posting->{list}) {
        $context = Sympa::List->new($posting->{list}, $domain) or die "no list $posting->{list}\n";
    }
    my @sender = defined $posting->{sender} ? (envelope_sender => $posting->{sender}) : ();
    my $message = Sympa::Message->new_from_file($posting->{message}, context => $context, @sender)
        or die "Sympa does not take $posting->{message}\n";
    $message->{shelved}{tracking} = 'dsn' if $posting->{tracking};
    # Not the file's: the spool looks at when it is due.
    $message->{date} = time;
    $spool->store($message, $posting->{recipients}) or die "$posting->{message} was not spooled\n";
}

# What the daemon bulk.pl does again and again.
print Sympa::Spindle::ProcessOutgoing->new(log_smtp => 1)->spin, "\n";

# Children end while it goes on; the last of them here. It waits for one at a time, until there is none.
until (Sympa::Process->instance->wait_child < 0) { }
