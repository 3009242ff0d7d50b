"""Word lists of the semantic cache's gates. English; questions in other languages are left to the exact cache.

They say which words may stand for each other (``SYNONYMS``) and which never (``POLES``, ``UNITS`` …). A word that is in no
list has no synonym: what is missing here costs hits, never a wrong one.
"""

from __future__ import annotations

import re
from typing import Final

from ragkube_api.text.inflection import lemma


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTION_WORDS: Final = _set(
    """a an the of to in on at by for with from into onto as and or but if then than that this these those it its is are
    was were be been being am do does did done can could will would shall should may might must have has had having i you
    he she we they me my mine your yours his her hers our ours us them their theirs one ones so such there here what which
    who whom whose when where why how any some please also just very really quite exactly actually while during about up after once
    out over through via per upon within among between not no s t re ve ll d m"""
)
"""Carry the grammar of a question; their differences are judged by the guards and the score."""

FILLERS: Final = _set(
    """question answer know tell explain describe help wonder please anyone somebody someone anybody thing way get got
    possible possibly able exactly actually mean happen occur exist certain particular specific given current currently
    ever want say said state used use using work works come go make made take give so-called kind sort type
    there still simply generally basically typically normally usually hi hello thanks thank people person ask asked
    case situation reason rationale cause make makes result regarding concerning respect term terms according kubernetes k8s"""
)
"""May be there or not."""

NUMBER_WORDS: Final = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            ".",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
        ]
    )
    if word != "."
} | {
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "hundred": "100",
    "thousand": "1000",
}

PHRASES: Final = {
    "set up": "configure", "turn on": "enable", "turned on": "enabled", "switch on": "enable", "switched on": "enabled",
    "turn off": "disable", "turned off": "disabled", "switch off": "disable", "switched off": "disabled",
    "shut down": "shutdown", "roll back": "rollback", "rolled back": "rollback", "rolling back": "rollback",
    "get rid of": "remove", "find out": "determine", "at most": "maximum", "no more than": "maximum", "up to": "maximum",
    "at least": "minimum", "no less than": "minimum", "rather than": "instead", "instead of": "instead",
    "and not": "instead", "due to": "because", "because of": "because", "such as": "like", "for example": "like",
    "e.g.": "like", "have to": "must", "has to": "must", "had to": "must", "need to": "must", "needs to": "must",
    "a lot of": "many", "lots of": "many", "able to": "can", "in order to": "to", "so that": "so", "as well as": "and",
    "take place": "happen", "each other": "mutually", "one another": "mutually", "point out": "show", "cannot": "can not",
}  # fmt: skip
"""Several words that stand for one."""

MEASURED: Final = _set(
    "long many much often frequently quickly quick fast soon large big far likely probable precise late high deep tall old"
)
"""Behind ``how`` they say what kind of number is asked for, which the guards look at."""

NEGATIONS: Final = _set(
    """not no never without none nobody nothing neither nor unless except hardly barely lack lacking missing refuse unable
    impossible prevent prevents prevented preventing avoid avoids avoided avoiding"""
)

_POLES: Final = """
enable enabled enabling activate activated | disable disabled disabling deactivate deactivated off
allow allowed permit permitted accept accepted approve approved grant granted admit | deny denied forbid forbidden reject rejected refuse refused prohibit prohibited block blocked disallow disallowed decline revoke revoked
add added adding addition insert attach attached append create created creating creation | remove removed removing removal delete deleted deleting deletion detach detached drop dropped destroy
before prior earlier | after afterwards later following since once | until
increase increased increasing raise raised grow grew growing rise rose higher high expand expanded | decrease decreased decreasing reduce reduced reducing lower lowered shrink shrunk shrinking fall fell low drop
up upward | down downward
large big huge | small tiny little
on | off
more greater larger bigger above over exceed exceeds longer | less fewer smaller below under shorter
maximum max most largest biggest highest longest upper greatest at-most | minimum min least smallest lowest shortest lower at-least
first oldest earliest initial initially | last latest newest final finally
start started starting startup begin began launch boot open opened | stop stopped stopping end ended shutdown terminate terminated termination finish finished close closed
success succeed succeeds successful successfully pass passes passed | fail fails failed failure failing unsuccessful
read reads reading reader | write writes writing writer
client clients | server servers
source sources sender origin | destination destinations target targets receiver recipient
import imports imported importing | export exports exported exporting
upgrade upgrades upgraded upgrading promote promoted promotion | downgrade downgrades downgraded downgrading rollback revert reverted demote demoted
include includes included including | exclude excludes excluded excluding omit omitted
public external outside outbound egress outgoing | private internal inside inbound ingress incoming
static manual manually fixed | dynamic automatic automatically automated
mutable writable changeable | immutable readonly read-only unchangeable
encrypt encrypted encryption encode encoded encoding | decrypt decrypted decryption decode decoded decoding
mount mounted mounting | unmount unmounted unmounting
lock locked locking | unlock unlocked unlocking
install installed installing installation | uninstall uninstalled uninstalling
valid | invalid
optional | mandatory required compulsory
safe secure secured safely | unsafe insecure unsafely dangerous
ready healthy available | unready unhealthy unavailable
privileged root | unprivileged non-root rootless
authenticated | anonymous unauthenticated
synchronous synchronously sync | asynchronous asynchronously async
horizontal horizontally | vertical vertically
backward backwards | forward forwards
same equal identical | different distinct unequal
best better good great advantage advantages benefit benefits pro pros positive strength strengths | worst worse bad disadvantage disadvantages drawback drawbacks con cons downside downsides negative weakness weaknesses
fast faster fastest quick quickly quicker quickest | slow slower slowest slowly
many much | few little
often frequently always | rarely seldom never
hot warm | cold
cheap cheaper cheapest inexpensive | expensive costly pricey
easy easier easiest simple simpler simplest | hard harder hardest difficult complex complicated
buy buying purchase bought | sell selling sold sale
win winning won | lose losing lost
love like loves likes | hate hates dislike
male man boy husband father son men boys | female woman girl wife mother daughter women girls
gain gains gaining | lose loses losing loss
push pushes pushed | pull pulls pulled
parent parents | child children
full complete completely entire entirely | partial partially part empty
early earlier | late later
old older oldest | new newer newest
long | short
true | false
yes | no
online | offline
left | right
north | south
east | west
cpu processor | memory ram | disk storage | network
alpha | beta | ga stable
ipv4 | ipv6
tcp | udp | sctp
http | https
xfs | ext4 | btrfs
linux | windows | macos
daily day | weekly week | monthly month | yearly annual annually year | hourly hour
january | february | march | april | june | july | august | september | october | november | december
monday | tuesday | wednesday | thursday | friday | saturday | sunday
red | blue | green | black | white | yellow
primary main | secondary
input inputs | output outputs
sent send sends sending | receive receives received receiving
local locally | remote remotely | global globally
single one-time once | multiple several many both
user users | admin admins administrator administrators
producer | consumer
master leader | slave follower
node nodes | pod pods | container containers | cluster clusters | namespace namespaces
hard | soft
active | passive inactive idle
visible | hidden invisible
supported supports support | unsupported deprecated
deprecated | removed
explicit explicitly | implicit implicitly
always | never
ascending | descending
inner | outer
upstream | downstream
positive | negative
strict strictly | loose lenient relaxed
"""


def _places(table: str) -> dict[str, tuple[tuple[int, int], ...]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for line, poles in enumerate(table.strip().splitlines()):
        for pole, words in enumerate(poles.split("|")):
            for word in words.split():
                found.setdefault(word, []).append((line, pole))
    return {word: tuple(places) for word, places in found.items()}


POLES: Final = _places(_POLES)
"""Line and pole of each word: words of one pole never stand for a word of another pole of the same line."""

UNITS: Final = {
    unit: name
    for name, units in {
        "ns": "ns nanosecond nanoseconds", "us": "us µs microsecond microseconds", "ms": "ms msec millisecond milliseconds",
        "s": "s sec secs seconds", "min": "m min mins minute minutes", "h": "h hr hrs hour hours hourly", "d": "day days daily",
        "week": "week weeks weekly", "month": "month months monthly", "year": "year years yearly annual annually",
        "byte": "b byte bytes", "bit": "bit bits", "kb": "kb kilobyte kilobytes", "kib": "ki kib kibibyte kibibytes",
        "mb": "mb megabyte megabytes", "mib": "mi mib mebibyte mebibytes", "gb": "gb gigabyte gigabytes",
        "gib": "gi gib gibibyte gibibytes", "tb": "tb terabyte terabytes", "tib": "ti tib", "%": "% percent percentage",
        "percentile": "percentile", "core": "core cores", "millicore": "millicore millicores", "mile": "mile miles",
        "km": "km kilometer kilometers kilometre kilometres", "meter": "meter meters metre metres", "foot": "ft foot feet",
        "inch": "inch inches", "cm": "cm", "mm": "mm", "kg": "kg kilo kilos kilogram kilograms", "gram": "gram grams",
        "pound": "lb lbs pound pounds", "usd": "$ usd dollar dollars", "eur": "€ eur euro euros", "inr": "rs inr rupee rupees",
        "gbp": "£ gbp", "celsius": "celsius °c", "fahrenheit": "fahrenheit °f",
    }.items()
    for unit in units.split()
}  # fmt: skip

QUANTIFIERS: Final = {
    word: name
    for name, words in {
        "all": "all every each whole entire everyone everything", "only": "only solely exclusively alone merely",
        "both": "both", "either": "either", "some": "several various multiple many", "half": "half", "twice": "twice double",
        "most": "mostly majority", "another": "another other others else additional", "same": "same identical",
        "first": "first", "second": "second", "third": "third", "last": "last", "next": "next", "previous": "previous",
        "again": "again", "still": "still", "already": "already yet", "even": "even", "too": "too", "enough": "enough",
        "instead": "instead", "ever": "always",
    }.items()
    for word in words.split()
}  # fmt: skip

NECESSITY: Final = _set(
    "must mandatory required require requires obliged compulsory necessary needed need needs"
)
POSSIBILITY: Final = _set("might optional optionally perhaps")
PAST: Final = _set("was were did had won has have")

_SYNONYMS: Final = """
big large huge
start begin launch
stop end halt cease
maximum max most highest largest greatest upper
minimum min least lowest smallest
limit cap bound restriction maximum
fix solve resolve repair
use utilize utilise employ
need require
purpose goal aim point
reason cause rationale motivation
difference differ distinguish distinction
method way approach technique
choose select pick chosen
prevent avoid
happen occur
show display
begin start
change modify alter
delete remove
create make generate
add include
error failure
allow permit let enable
allowed permitted
forbid disallow prohibit disallowed
enable activate
disable deactivate
configure set setup
default standard
increase raise
decrease reduce lower
improve better increase
keep retain preserve
replace substitute
restart reboot
run execute
start startup
finish complete
fail break
quick fast rapid
quickly fast
size large big
long duration
often frequently frequency
interval period
get obtain retrieve receive
find locate discover
buy purchase
learn study
begin start
job work
movie film
phone mobile cellphone
photo picture image
kid child
earn make
tip advice suggestion
effective effectively efficient
important significant
main primary principal
easy simple
easily simply
hard difficult
fast quickly
old aged
shut close
speak talk
website site
company firm
good best great
top best
many several
share percentage proportion portion
rejected discarded
reject refuse
drawback disadvantage downside
advantage benefit
option flag switch
flag option
field property
setting option parameter
value setting
version release
release version
upgrade update
check verify
validate check verify
contain hold include
affect influence impact
effect impact consequence
explain describe
supported support
introduce add
removed dropped
permission right
folder directory
command instruction
message notice
amount quantity number
number count
count number
total overall
copy duplicate
list enumerate
existing present current
lifetime lifespan
expire end
expiration expiry
minimum shortest
maximum longest
automatically automatic
manually hand
simultaneously concurrently parallel
owner responsible
refuse decline
wait delay
delay latency
return respond give yield
respond reply answer
log logging
send transmit
together combined
because due
allowed valid
wrong incorrect
compute calculate
stay remain keep
preserve keep retain
stay keep
become turn
become get
precise precision accurate accuracy
likely likelihood probable probability chance
difference differ different differ distinct
suffer get incur
shrink shrunk
grow grown
maximum longest long
delay late
replacement replace
support supported
directly immediately right straight instantly
under below beneath with
above over
via through using by
outside beyond
early soon
halt stop pause
reboot restart
bound limit
bounded limited
revert roll
back backward
reuse use
name call label
careful care
primary main
drawback disadvantage
motivate reason
motivation reason
impossible cannot
cover handle include
extend expand
initial first original
initially originally
original originally
commonly usually typically often normally
mostly largely mainly
quick soon
frequency often interval
interval frequency
period interval
allowed may can
invoke call
invocation call
size length
assign give
apply use
applied used
build construct
deploy install
ask request
obtain acquire
verify confirm
confirm check
manage handle
handle process treat
select choose
pick choose
trigger cause
transform convert
convert change turn
merge combine join
split divide
reach arrive
gather collect
purchase buy
shop store
store save
save keep
lawyer attorney
doctor physician
car automobile
autumn fall
film movie
cost price
price rate
salary pay
pay cost
country nation
city town
house home
college university
pupil student
book novel
weight mass
stomach belly
cure treat heal remedy
treatment cure
feel think
think believe opine
opinion view thought
guess estimate
weird strange odd
funny hilarious
beautiful pretty
smart intelligent clever
rich wealthy
famous popular
lose shed
reduce lose
right correct
decide determine
determine tell decide
name called named
call name
mean signify
required needed necessary
"""

_GROUPED = re.compile(r"\S+")


def _groups(table: str) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, line in enumerate(table.strip().splitlines()):
        for word in _GROUPED.findall(line):
            found.setdefault(lemma(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}


SYNONYMS: Final = _groups(_SYNONYMS)
"""Which groups a lemma belongs to; two words of one group may stand for each other."""


def synonyms(left: str, right: str) -> bool:
    """Whether one lemma may stand for the other."""
    return bool(SYNONYMS.get(left, frozenset()) & SYNONYMS.get(right, frozenset()))
