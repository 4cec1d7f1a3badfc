"""Stories of losing, searching and finding."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

KEY = Plot(
    name="the key in the pond",
    titles=("The Key in the Pond", "Plop!", "{a} Looks for the Key", "The Thing That Shone"),
    cast="abc",
    values={
        "HOME": ("village", "garden", "forest"),
        "CHEST": ("an old trunk", "a green cupboard", "a music box", "a tiny door", "a wooden chest"),
        "INSIDE": ("a hundred old letters", "a silver flute", "three golden bells", "a puppet theatre"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "In the attic {a.he} had found {CHEST}, and it was locked. {a.He} {a:surprised}.",
                "{a.He} {a~sat} in front of {CHEST} that would not open, and {a.he} {a:angry}.",
            ),
        ),
        page(
            (
                "Under the stairs {a} found a little {key}. It was old and bright.",
                'Then {a} saw a {key} on a nail, high up. "That must be it!" {a.he} said.',
            ),
            (
                "{a.He} {a~danced} with it down the street and round the well.",
                "{a.He} {a~ran} to the window, threw it up in the air and caught it again.",
                "{a.He} {a:cheering}. Now it would open at last!",
            ),
        ),
        page(
            (
                "{a} {a~skipped} {to:pond}, tossing it up and catching it. Up, down, up, down.",
                "{a} {a~walked} {to:pond} to wash it. It was as slippery as a fish.",
            ),
            (
                "Plop! The {key} was gone. {a} {a:surprised}.",
                'Plop! In fell the {key}, right to the bottom. "Oh no!" said {a}, {a:sad.ing}.',
            ),
        ),
        page(
            (
                "By the water {a} met {b.new}.",
                "Under a willow was {b.new}.",
            ),
            (
                '{b.He} {b~sat} with a fishing rod, {b:sleepy.ing}. "You scare the fish," said {b}. {a} {a:surprised,angry}.',
                '"Who makes such a noise here?" asked {b}, {b:angry.ing}. {a} {a:sad}.',
                '"Can I help?" asked {b}, {b:waving.ing}. {a} {a:sad}. "My key is down there," {a.he} said.',
            ),
        ),
        page(
            (
                "{b} tried to fish it out. {b.He} pulled up an old boot.",
                "{b} threw in the line. Up came a boot, and then a teapot.",
            ),
            (
                '"Not mine," said {a}, {a:sad.ing}. {b} {b:angry}.',
                "{b} {b:surprised}, and {a} {a~laughed} a little after all.",
                "{b} {b~grumbled} and threw it back. {a} {a~sat down} in the grass.",
            ),
        ),
        page(
            (
                "Then {a} tried with a {basket} on a rope, but there was only mud in it.",
                "{a} held a {basket} under the water, again and again. Mud, weed, and more mud.",
            ),
            (
                '"I give up," said {a}. {a.He} {a~stamped HIS foot}, and {b} {b:sad}.',
                '{b} {b~yawned}. "Fishing needs time," {b.he} said. {a} {a:angry}.',
                "{a} {a~sat down} in the mud and {a:sad,angry}.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} a head popped out of the reeds. It was {c.new}.",
                "{t:dusk} somebody came swimming by. It was {c.new}.",
            ),
            (
                '{c.He} {c~waved}. "Why are you two so quiet?" {c.he} asked.',
                '"Is this yours?" asked {c}, {c:waving.ing}. But {c.he} held up only a spoon. {a} {a:sad}.',
                '"What a lot of mud you made!" said {c}, {c:angry.ing}. {a} {a:sad}.',
            ),
        ),
        page(
            (
                '"I can dive," said {c}, and took a deep breath. {ab} {ab~sat down} and counted.',
                "{c} heard the story and dived at once. {ab} {ab~sat} on the bank and counted.",
            ),
            (
                '"Ten, twenty, thirty," said {b}, {b~staring} at the rings in the water.',
                "One bubble. Two bubbles. {a} did not dare to look.",
                '"So long under water!" whispered {a}, and {b} took {a.his} hand.',
            ),
        ),
        page(
            (
                "Then up came {c}, and in {c.his} hand was the {key}!",
                "Splash! There was {c} again, with the {key} between {c.his} teeth.",
            ),
            (
                "{a} {a:cheering}, {b} {b:cheering}, and {c} {c~waved}.",
                '{b} {b:surprised}. {a} {a:cheering}. "Thank you, thank you!"',
            ),
        ),
        page(
            (
                "[{abc}|{abc.They}|{abc.friends}] {abc~hurried} back {to:HOME}. Click, said the lock, and the {key} turned.",
                "{t:night} {abc} were in front of {CHEST} {at:HOME}. {a} turned the {key}. Click!",
            ),
            (
                "Inside lay {INSIDE}. {a} {a:surprised}, and {c} {c:surprised}.",
                '"{INSIDE}!" {b} {b~gasped}. {a} {a~beamed}.',
                "{b} {b~yawned}, but not for long, for inside lay {INSIDE}.",
            ),
        ),
        page(
            (
                "{t:nextday} {a} tied the {key} to a long red string.",
                "From now on, {a} wore the {key} round {a.his} neck. {t:nextday} {a.he} showed it to {bc}.",
            ),
            (
                '"Now it can never go plop," {a.he} said. {bc} {bc~laughed}.',
                '[{bc}|{bc.They}|{bc.friends}] {bc~waved}. "But we do love a good splash!" said {c}.',
                "{b} {b~sat down} with a {book}, and {c} {c~danced} round the table.",
            ),
        ),
    ),
)

LANTERN = Plot(
    name="the stolen lantern",
    titles=("The Stolen Lantern", "Who Took the Light?", "{a} the Detective", "A Light for {c}"),
    cast="abc",
    values={"HOME": ("village", "garden", "meadow"), "HIDE": ("forest", "mountain", "beach", "snowfield")},
    beats=(
        page(
            opening("oneevening", "HOME"),
            (
                "{a.He} lit the big {lantern} at the gate, as always. {a.He} {a~waved} to the neighbours.",
                "{a.He} took care of the {lantern} that showed everyone the way home, and {a.he} {a~sat} beside it.",
            ),
        ),
        page(
            (
                "{t:night} {a} {a~dozed}, just for a moment. And then the light was gone!",
                "But {t:night} {a} {a~dozed}. When {a.he} woke, it was pitch dark. No light, nothing!",
            ),
            (
                '"Somebody has stolen it!" {a.he} called.',
                '"Thief!" {a.he} called. "Stop, thief!"',
                "Far away {a.he} heard small, quick feet.",
            ),
        ),
        page(
            (
                "{a} knocked at the next house. There lived {b.new}.",
                "The shouting woke {b.new}.",
            ),
            (
                '{b} {b:sleepy}. "Can it not wait?" {b.he} asked. {a} {a:angry}. "No, it cannot!"',
                '"Stolen?" said {b}, {b:angry.ing}. "We will catch that thief!" {a} {a:happy}.',
                '{b} {b:surprised,angry}. "But it was as big as a bucket!" {b.he} said. {a} {a:sad}.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] bent down and saw little footprints in the mud.",
                '"Look here," said {a}. There were footprints, very small ones.',
            ),
            (
                '"A very small thief," said {b}, {b:surprised.ing}. {ab} {ab~tiptoed} after them.',
                "{a} {a~crept} along, nose to the ground, and {b} {b~crept} behind {a.him}.",
            ),
            optional=True,
        ),
        page(
            (
                "The footprints led {to:HIDE}. {ab} {ab~tiptoed} on without a sound.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~ran} {to:HIDE}, where it was so dark that {b} bumped into {a}.",
            ),
            (
                '{b} {b~yawned}. "Why do thieves never come by day?" {b.he} asked.',
                '"I am not afraid," said {b}. "Nor am I," said {a}. That was not quite true.',
                "A branch cracked. {b} {b~gasped} and held on to {a}.",
            ),
        ),
        page(
            (
                "Something glowed behind a rock. It was the {lantern}, and beside it was {c.new}.",
                "There was the {lantern}! And there was the thief, {c.new}.",
            ),
            (
                '"Got you!" said {a}, {a:angry.ing}. {c} {c:surprised}.',
                '{a} {a:angry}. {c} {c~wept}. "Please do not shout," {c.he} said.',
                "{b} {b:angry}. But {c} {c~sat} there and {c:sad}.",
            ),
        ),
        page(
            (
                '"Why did you take it?" asked {a}. {c} looked at {c.his} feet.',
                '"That light belongs to everyone!" said {b} {b:angry.ly}.',
            ),
            (
                '"I am afraid of the dark," said {c}, {c:sad.ing}. {a} {a:surprised}.',
                '"I live here all alone," said {c} {c:sad.ly}, "and it is so dark." {b} {b:sad}.',
            ),
        ),
        page(
            (
                "{a} {a~sat down} beside {c}. All the anger was gone.",
                "Nobody spoke. Then {a} {a~sat down} and put an arm round {c}.",
            ),
            (
                '"When I was little, I was afraid, too," said {a}. {c} {c~stared} at {a.him}.',
                '"I am afraid sometimes, too," said {b}. And {c} {c~smiled} a little.',
                '{b} {b~sat down} on the other side. "We will find a way," {b.he} said.',
            ),
        ),
        page(
            (
                "[{abc}|{abc.They}|{abc.friends}] {abc~walked} home together {to:HOME} and put the {lantern} back on its hook.",
                "{c} carried the {lantern} back {to:HOME}, and {ab} {ab~walked} on either side.",
            ),
            (
                '"I am sorry," said {c} {c:sad.ly}. {b} {b:sleepy} and patted {c.his} head.',
                '{b} {b~waved} to the neighbours at their windows. "It is back!"',
                "{c} {c:sleepy}, so {c.he} slept in the house of {a} under a thick blanket.",
            ),
        ),
        page(
            (
                "{t:nextday} {a} and {b} made a second {lantern}, small and round.",
                "{t:nextday} {b} brought glass, and {a} brought wire, and soon there was a small {lantern}.",
            ),
            (
                '"This one is yours," said {a}. {c} {c:cheering}.',
                '"For me?" asked {c}, {c:surprised.ing}. {b} {b~beamed}.',
            ),
        ),
        page(
            (
                "{t:dusk} there were two lights, one for the gate and one for {c}.",
                "And so, {t:dusk}, {c} hung up a {lantern} of {c.his} own.",
            ),
            (
                "{a} {a~waved} from the gate, and {c} {c~waved} back.",
                '"Good night!" called {ab}, {ab:waving.ing}. {c} {c~yawned}. The dark was only dark.',
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} on the wall and looked at it, until {b} {b~dozed}.",
            ),
        ),
    ),
)

TREASURE = Plot(
    name="a map to treasure",
    titles=("A Map to Treasure", "X Marks the Spot", "{a}, {b} and the Old Map", "The Real Treasure"),
    cast="abc",
    values={
        "HOME": ("kitchen", "bedroom", "garden"),
        "FIRST": ("meadow", "village"),
        "SECOND": ("forest", "pond"),
        "THIRD": ("mountain", "beach", "snowfield"),
        "TREASURE": ("a bag of marbles", "a tin of toffees", "an old trumpet", "a box of paints", "a jar of buttons"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "Out of an old {book} fell a {map}. {a} {a:surprised}.",
                "Behind a loose board {a.he} found a {map}, yellow with age. {a.He} {a~jumped for joy}.",
            ),
        ),
        page(
            (
                "{a} {a~ran} {to:FIRST} to tell {b.new}.",
                "{to:FIRST} {a} {a~ran}, for there lived {b.new}.",
            ),
            (
                '"Look at the cross!" said {a} and unrolled the {map}. {b} {b:surprised}.',
                '"Treasure!" {b} {b:cheering}. "And who shall carry the spade?"',
                '{b} {b~yawned}. "It is too early for treasure," {b.he} said. But {b.he} came along.',
            ),
        ),
        page(
            (
                '"Forty steps to the east," read {a}. {ab} {ab~marched} {to:SECOND} and counted aloud.',
                "[{ab}|{ab.They}|{ab.friends}] {ab~walked} {to:SECOND}, just as the {map} said.",
            ),
            (
                "At thirty-nine {b} fell into a hole. {b.He} {b:angry}.",
                "{b} {b~waved} a stick like a sword, and {a} {a~laughed}.",
                '"Left!" said {a}. "Right!" said {b}, {b:angry.ing}. The {map} was upside down.',
            ),
        ),
        page(
            (
                "A big stone blocked the path. {a} pushed, {b} pulled, and it did not move.",
                "There the path ended at a fallen tree, much too high for {a} and {b}.",
            ),
            (
                '{a} {a~sat down} and {a:sad}. "So near, and yet so far," {a.he} said.',
                "{b} {b~stamped HIS foot}. {a} {a~sat down} on the {map} and {a:sad,angry}.",
                '[{ab}|{ab.They}|{ab.friends}] {ab~sat down}, {ab:sad,angry.ing}. "Two are not enough," said {b}.',
            ),
        ),
        page(
            (
                "Then {ab} met {c.new}.",
                "Round the bend came {c.new}.",
            ),
            (
                '{c.He} {c~waved}. "Need a push?" asked {c}. {ab} {ab:surprised}.',
                '"You woke me," said {c}, {c:sleepy.ing}. But {c.he} helped all the same.',
                '"What do I get if I help?" asked {c}. "A third of it all," said {a}, {a:happy,waving.ing}.',
            ),
        ),
        page(
            (
                "One, two, three, heave! With {abc} at work, the way was free.",
                "[{abc}|{abc.They}|{abc.friends}] pushed all at once. Crack! The way was free.",
            ),
            (
                "{b} {b~sat down} with a bump, and {c} {c~laughed}.",
                "{abc.they} {abc:cheering}, louder than thunder.",
                "{c} {c:cheering}, {a} {a~waved HIS arms}, and {b} {b~grinned}.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} {abc} came {to:THIRD}. Here was the cross on the {map}.",
                "The {map} led {abc} {to:THIRD}. {t:dusk} three white stones showed the spot.",
            ),
            (
                "{a} dug, {b} {b~sat} and gave orders, and {c} {c~yawned}.",
                '"Dig here!" said {b}, {b:cheering.ing}. {a} dug until {a.he} {a:sleepy}.',
                "{a} dug a hole, and then another one. {b} {b:sleepy}.",
            ),
        ),
        page(
            (
                "Clonk! The spade hit something. {a} lifted out a small box.",
                "Clonk! Under the sand was a small box. {c} blew off the dust.",
            ),
            (
                'Inside was {TREASURE}. {b} {b:angry}. "Is that all? No gold?"',
                "[{abc}|{abc.They}|{abc.friends}] looked in. It was {TREASURE}. {b} {b:sad,angry}, and {a} {a:surprised}.",
                '"Oh," said {b}, {b:sad.ing}. It was no gold at all. It was {TREASURE}.',
            ),
        ),
        page(
            (
                "But {c} found a note at the bottom, and {a} read it out.",
                "There was also a letter. {a} {a~sat down} and read it to {b} and {c}.",
            ),
            (
                '"The real treasure is the friend who came with you." {b} {b:surprised}.',
                '"You who found this did not find it alone," it said. {b} {b:happy}.',
            ),
        ),
        page(
            (
                "[{abc}|{abc.They}|{abc.friends}] {abc~sat} close together {t:night} and shared {TREASURE}.",
                "{t:night} {abc} made a fire and {abc~sat} round it with {TREASURE}.",
            ),
            (
                '"It is better than gold," said {c}, {c:sleepy.ing}.',
                "{b} {b~yawned}, and {a} {a:happy}.",
                '{c} {c:happy}. "This morning I had no friends at all," {c.he} said.',
            ),
        ),
        page(
            (
                "{t:nextday} {abc} drew a new {map} and hid it for somebody else.",
                "{t:nextday} {a} drew a {map} of {a.his} own, with three little figures on it.",
            ),
            (
                '"Who will find it?" asked {b}. {c} {c~waved} to nobody in particular.',
                "{b} {b~skipped} ahead, {c} {c~danced}, and {a} {a~laughed}.",
                '"Where shall we go next?" asked {c}. {a} {a:cheering}. "Everywhere!"',
            ),
        ),
    ),
)

PLOTS = (KEY, LANTERN, TREASURE)
