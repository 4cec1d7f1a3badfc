"""Stories of going away and coming back, and of friends who are far apart."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

PROMISE = Plot(
    name="the sea in a basket",
    titles=("The Sea in a Basket", "{a} Keeps a Promise", "Before the Sun Goes Down", "What {b} Heard"),
    cast="abc",
    values={"HOME": ("village", "garden", "meadow"), "WAY": ("forest", "mountain")},
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "Today {a.he} would see the sea for the first time. {a.He} packed a {basket} and {a:cheering}.",
                "{a.He} {a~skipped} three times round a {basket} full of sandwiches. Today {a.he} would see the sea!",
            ),
        ),
        page(
            (
                "But {at:bedroom} next door was {b.new}.",
                "First {a.he} looked in next door. There, {at:bedroom}, was {b.new}.",
            ),
            (
                '{b.He} {b~sat} in bed with a cold, {b:sad.ing}. "I will bring you the sea by tonight," said {a}.',
                '{b.He} {b~sat} in bed and sneezed. "I promise to bring you the sea tonight," said {a}. {b} {b:surprised}.',
            ),
        ),
        page(
            (
                "{a} {a~walked} all the way {to:beach} with the {basket}.",
                "With the {basket} on {a.his} arm {a} {a~ran} {to:beach}.",
            ),
            (
                "And there it was, blue {wide:as far as the eye could see}. {a} {a~gasped}.",
                "The sea went on and on, {wide:as far as the eye could see}. {a.He} {a~stood still} and looked.",
            ),
        ),
        page(
            (
                "How do you carry the sea? {a} filled the {basket} with water, and it dripped out again.",
                "{a} dipped the {basket} into a wave. Drip, drip, drip, and it was empty.",
            ),
            (
                '{a.He} {a~sat down}. "But I promised!" {a.he} said {a:sad,angry.ly}.',
                "{a.He} tried with both hands, and with {a.his} left shoe. No good! {a.He} {a:angry}.",
            ),
        ),
        page(
            (
                "Along the shore came the voice of {c.new}.",
                "Not far off was {c.new}.",
            ),
            (
                '"My boat is stuck in the sand!" called {c}, {c:waving,angry.ing}. "Will you push with me?" {a} {a:surprised}.',
                "{c.He} pushed at a {boat} that would not move, {c:angry.ing}. {a} put down {a.his} things and {a~ran} to help.",
            ),
        ),
        page(
            (
                "[{ac}|{ac.They}|{ac.friends}] pushed and pushed. Splash! {t:dusk} the {boat} was free at last.",
                "Heave, and heave, and heave again! {T:dusk} the {boat} slid into the water.",
            ),
            (
                '{c} {c:cheering}. But {a} looked at the low red sun. "I shall be late," {a.he} said, {a:sad.ing}.',
                '"Hurrah!" {c} {c~cheered}. {a} {a:sad}. "I promised to be back by tonight," {a.he} said.',
            ),
        ),
        page(
            (
                "{c} listened to the whole story. Then {c.he} dug a pink shell out of the sand and {c:happy}.",
                '"You want to carry the sea?" said {c}, {c:happy,waving.ing}. {c.He} put a big white shell into the {basket}.',
            ),
            (
                "{a} held it {near:so close} that it kissed {a.his} ear. Hush, hush, it went. {a.He} {a:surprised}.",
                'It was {near:so close} to the ear of {a} that it tickled. Hush, hush! "It is in there!" {a} {a~gasped}.',
            ),
        ),
        page(
            (
                "{t:night} {a} {a~hurried} home {to:WAY} with a borrowed {lantern}.",
                "{t:night} {a} {a~ran} {to:WAY} on the long way home, and a borrowed {lantern} swung at {a.his} side.",
            ),
            (
                '{meanwhile:bedroom} {b} {b~sat} at the window. "Perhaps the sea was too heavy," {b.he} said {b:sad,sleepy.ly}.',
                '{meanwhile:bedroom} {b} {b:sleepy}. But {b.he} {b~sat} up straight. "A promise is a promise," {b.he} said.',
            ),
        ),
        page(
            (
                "{To:bedroom} came {a}, with wet shoes and a {basket}.",
                "{At:bedroom} the door flew open, and {a} put the {basket} on the bed.",
            ),
            (
                '"Am I late?" asked {a}, {a:sleepy.ing}. {b} held the shell to {b.his} ear and {b:surprised,happy}.',
                '{b} {b:cheering}. Then {b.he} listened. "It goes hush," {b.he} whispered. {a} {a~yawned}. "That is what it says."',
            ),
        ),
        page(
            (
                "{t:nextday} the cold was gone. {b} came out {to:HOME} with a {basket} of {b.his} own.",
                "{t:nextday} {b} knocked at the house of {a} {at:HOME}, with a {basket}, and not one sneeze.",
            ),
            (
                '"Now I want to see where it lives," said {b}. {ab} {ab~marched} off to the sea.',
                '"Next time I promise you something smaller," said {a}. {b} {b~laughed}, and {a} {a:cheering}.',
            ),
        ),
    ),
)

LETTER = Plot(
    name="a letter in a bottle",
    titles=("A Letter in a Bottle", "{a} Gets a Letter", "Dear Somebody", "Who Is {c}?"),
    cast="abc",
    values={
        "HOME": ("beach", "pond"),
        "FAR": ("mountain", "snowfield", "forest"),
        "GIFT": ("blue feather", "pressed flower", "round white pebble", "snail shell"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                'A bottle bobbed on the water, and there was paper in it. "A letter!" {a.he} {a~gasped}.',
                "{a.He} {a~sat} with {a.his} feet in the water when a bottle bumped against {a.his} toe. {a.He} {a~stared}.",
            ),
        ),
        page(
            (
                "{a} {a~ran} {to:village} to show it to {b.new}.",
                "{to:village} {a} {a~ran} with the bottle. There lived {b.new}.",
            ),
            (
                'Pop! "Dear Somebody," read {b}. "I am all alone up here. Please write." {a} {a:sad}.',
                '{b} {b:sleepy}, but {b.he} read it out. "Dear Somebody, do you like pancakes?" {a} {a:cheering}. "I do!"',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat down}, {near:nose to nose}, with one pen for two.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} with their heads {near:so close} together that their foreheads touched.",
            ),
            (
                '"Dear Friend, who are you?" wrote {a}, and {b} drew pancakes all round the edge, {b:happy.ing}.',
                '"Put in that we cannot fly," said {b}. "Why?" asked {a}, {a:surprised.ing}. "So that there are no mistakes."',
            ),
        ),
        page(
            (
                "{a} put a {GIFT} into the bottle, too, and {ab} {ab~ran} {to:HOME}.",
                "Into the bottle went a {GIFT} and the letter. {ab} {ab~walked} {to:HOME}.",
            ),
            (
                '"Swim well!" called {a}, {a:waving.ing}, and threw it as far as {a.he} could. {b} {b~waved} too.',
                "{a} threw it in. Back it came. {b} threw it in. Back it came! {a} {a:angry}.",
            ),
        ),
        page(
            (
                "{t:dusk} {ab} were still there. The bottle only went round in circles, and {b} {b:sleepy}.",
                "{t:dusk} the bottle lay at {a.his} feet again. {a} {a~sat down}. {b} {b:sad}.",
            ),
            (
                '"Letters need wind," said {b}. {a} took the {balloon} from {a.his} wrist and tied it to the bottle.',
                '"It needs wings after all," said {a}, and fetched a red {balloon} to carry it.',
            ),
        ),
        page(
            (
                "Up it went. Soon the {balloon} was {wide:no bigger than a dot} over the water, and {ab} {ab~waved}.",
                "The {balloon} rose higher and higher, until it was {wide:no bigger than a dot}. {ab} {ab~cheered}.",
            ),
            (
                '"Where does it want to go?" asked {b}. "To Dear Friend," said {a}.',
                '"What if it bursts?" asked {b}. {a} did not want to think of that.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} {ab} {ab~walked} up and down {at:HOME}.",
                "{t:nextday} {ab} {ab~sat} {at:HOME} with a {book}.",
            ),
            (
                "{meanwhile:FAR} something red fell into the porridge of {c.new}. {c.He} {c:surprised}.",
                "{meanwhile:FAR} a red {balloon} came down beside {c.new}. {c.He} {c:surprised,cheering}.",
            ),
        ),
        page(
            (
                "{c} {at:FAR} read the letter seven times. Then {c.he} put the {GIFT} on the windowsill.",
                "{At:FAR}, {c} put the {GIFT} where {c.he} could see it, and read the letter once more.",
            ),
            (
                '"Somebody!" {c.he} said. "I have a Somebody!" {c.He} {c~danced} round the stove and took {c.his} {map}.',
                "Nobody had ever written to {c.him}. {c.He} {c~wept} a little, and then {c.he} packed a {map} and a pan.",
            ),
        ),
        page(
            (
                "{c} followed the {map} and {c~marched} for two whole days, all the way {to:HOME}.",
                "With a {map} in one hand and a pan in the other {c} {c~walked} all the way {to:HOME}.",
            ),
            (
                '{t:dusk} there were {ab}, {ab:surprised.ing}. "Dear Somebody?" asked {c}.',
                '{t:dusk} {c} found {a} and {b} there. "Do you like pancakes?" {c.he} asked, {c:waving.ing}. {a} {a~gasped}.',
            ),
        ),
        page(
            (
                "[{abc}|{abc.They}|{abc.friends}] {abc~sat} round the pan {at:HOME} and ate until the flour was gone.",
                "{t:night} {abc} {abc~sat} round a fire {at:HOME}, and {c} baked pancakes as thin as paper.",
            ),
            (
                '{b} {b~yawned}. "And who is all alone now?" {b.he} asked. "Nobody," said {c}, {c:happy,waving.ing}.',
                '"Tomorrow we send another bottle," said {a}, {a:sleepy.ing}. "Dear Nobody, there is room for you, too."',
            ),
        ),
    ),
)

MOVING = Plot(
    name="two lights at night",
    titles=(
        "Two Lights at Night",
        "{b} Moves Away",
        "Good Night, {a}! Good Night, {b}!",
        "Three Times Short, Once Long",
    ),
    cast="ab",
    values={
        "HOME": ("village", "garden", "meadow"),
        "FAR": ("mountain", "beach", "forest"),
        "SWAP": ("marble", "blue button", "striped sock", "tin whistle"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "A cart full of chairs was at the gate next door. {a.He} {a~stood still} and {a:sad}.",
                "{a.He} {a~sat} on a box marked TEAPOTS, {a:sad,angry.ing}. It was not {a.his} box.",
            ),
        ),
        page(
            (
                "The box belonged to {b.new}.",
                "Out of the house next door came {b.new}.",
            ),
            (
                '"We are moving away," said {b}, {b:sad.ing}. {a} {a:angry}. "You could just stay!"',
                '{b.He} carried a {lantern} and a teapot. "It is only one valley away," {b.he} said. {a} {a:sad}.',
            ),
        ),
        page(
            (
                '"Take this," said {a}, and gave {b} a {SWAP}. {b} gave {a.him} the other {lantern}.',
                "{b} had a {lantern} for {a}, the twin of {b.his} own. {a} gave {b.him} a {SWAP}.",
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] hugged, {near:cheek to cheek}, and {ab~wept} on each other's collars.",
                '[{ab}|{ab.They}|{ab.friends}] looked at each other, {near:nose to nose}. "Do not forget me," said {b} {b:sad.ly}.',
            ),
        ),
        page(
            (
                "{a} {a~ran} beside the cart as far as the bridge, and the cart rolled on.",
                "{a} {a~climbed} on the wall and {a~waved} with both arms.",
            ),
            (
                "Soon {b} was {wide:no bigger than a dot} on the road, and still {b.he} {b~waved}.",
                "The road ran on {wide:as far as the eye could see}. {b} {b~waved} and {b~waved} from the last cart.",
            ),
        ),
        page(
            (
                "{t:dusk} {a} {a~sat} {at:HOME} with the {ball}. It is hard to play catch alone.",
                "{t:dusk} {a} threw the {ball} over the wall {at:HOME}. Nobody threw it back. {a.He} {a~sat down}.",
            ),
            (
                "{meanwhile:FAR} {b} {b~sat} between the boxes and {b:sad}.",
                '{meanwhile:FAR} {b} unpacked one teapot and {b~stopped}. "Too quiet," {b.he} said, {b:sad.ing}.',
            ),
        ),
        page(
            (
                "{t:night} {a} was {at:HOME}, wide awake. {a.He} held up the {lantern} and looked out at the hills.",
                "{t:night} {a} carried the {lantern} out {to:HOME} and held it up high.",
            ),
            (
                "{a.He} covered it with {a.his} hand, three times short and once long. {a.He} {a~waited}, {a:sleepy,sad.ing}.",
                '"If you can see me," {a.he} whispered, "say something." {a.He} {a~sat down} on the cold step.',
            ),
        ),
        page(
            (
                "And then, far across the valley, {at:FAR}, a tiny light went on.",
                "Something blinked in the dark, far off, {at:FAR}: three times short and once long.",
            ),
            (
                "It was {b}, {b~jumping} up and down with a {lantern}!",
                'There was {b} with the other {lantern}. "I knew it!" {b.he} said, {b:cheering.ing}.',
            ),
        ),
        page(
            (
                "Every night {ab} talked with their lights. One flash was yes, and two were no.",
                'All through the night {ab} flashed: "Are you there?" "I am here."',
            ),
            (
                'Once {a} {a~giggled} until {a.he} dropped the {lantern}, for {b} had said "soup" instead of "sorry".',
                "{a} {a~yawned}, and {b} {b~yawned}, and neither would be the first to put out the {lantern}.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} {a} put the {ball} under {a.his} arm and {a~walked} {to:FAR}.",
                "{t:nextday} {a} had a new plan. {a.He} took the {ball} and {a~set off} {to:FAR}.",
            ),
            (
                "It was only one valley after all. {b} {b~ran} to meet {a.him}, {b:happy.ing}.",
                '"I counted the steps," said {a}, {a:sleepy.ing}. "Only two thousand!" {b} {b:cheering}.',
            ),
        ),
        page(
            (
                "On the way back {ab} met in the middle, and there {ab.they} put the {SWAP} on a post.",
                "Half way between the houses {ab} found a flat stone, and {ab.they} {ab~sat down}.",
            ),
            (
                '"This is our place," said {b}. "A thousand steps for you, and a thousand for me." {a} {a:cheering}.',
                '{a} {a:surprised}. "Then we are still neighbours," {a.he} said, "only with a longer fence."',
            ),
            optional=True,
        ),
        page(
            (
                "{t:night} {a} {a~stood} at the gate {at:HOME} with the {lantern}. No cart, no boxes.",
                "{t:night} {a} {a~sat} on the wall {at:HOME}, where the cart had been, with the {lantern} on {a.his} knees.",
            ),
            (
                'Three times short, once long. "Good night, {b}!" {a.he} said, {a:happy,sleepy.ing}.',
                'Short, short, short, long. That means "good night", and it also means "friend". {a} {a~smiled} and {a~waved}.',
            ),
        ),
    ),
)

PLOTS = (PROMISE, LETTER, MOVING)
