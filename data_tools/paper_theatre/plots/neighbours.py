"""Stories of a stranger, of a game of hide and seek, and of a postbag."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

STRANGER = Plot(
    name="the stranger with the drum",
    titles=("The Stranger with the Drum", "Welcome, {c}", "Who Lives under the Bridge?", "A Chair for {c}"),
    cast="abc",
    values={
        "HOME": ("village", "garden", "meadow"),
        "CAMP": ("forest", "pond", "beach"),
        "DISH": ("noodle soup", "bean stew", "dumplings", "rice pudding"),
        "HELLO": ("Salibonga", "Humtumtu", "Olaloo", "Tikkitavi"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} laid the long table for the summer feast and {a~skipped} from chair to chair. Ten chairs, ten friends!",
                "Today was the summer feast. {a.He} counted the chairs. There were ten, and {a.he} {a:happy}.",
            ),
        ),
        page(
            (
                "The pots were carried by {b.new}.",
                "To help {a.him} came {b.new}.",
            ),
            (
                '{b} {b~stopped}. "Somebody is coming down the road," {b.he} said. "Somebody we do not know." {a} {a:surprised}.',
                '"Who is that over there?" asked {b}, {b:surprised.ing}. {a} {a~climbed} on a chair to see.',
            ),
        ),
        page(
            (
                "It was {c.new}.",
                "Down the road came {c.new}.",
            ),
            (
                '{c.He} carried a {drum} and {c~waved}. "{HELLO}!" {c.he} called. Nobody knew that word. {b} {b:angry}.',
                '"{HELLO}!" said {c}, {c:waving,happy.ing}, and tapped on a {drum}. {a} {a:surprised}. What did that mean?',
            ),
        ),
        page(
            (
                '"We have ten chairs," said {b} {b:angry.ly}. "Nobody has sent for an eleventh."',
                '"There is no chair left," said {b}, {b:angry.ing}. {a} looked at {a.his} feet.',
            ),
            (
                "{c} nodded, took the {drum} and {c~walked} away. {c.He} {c:sad}.",
                "{c} did not know the words, but {c.he} knew that face. {c.He} {c:sad} and {c~wandered} off.",
            ),
        ),
        page(
            (
                "{t:dusk} the feast began {at:HOME}. But the {DISH} did not taste right, and {a} {a:sad}.",
                "{t:dusk} {ab} {ab~sat} {at:HOME} over the {DISH}. {a} did not eat.",
            ),
            (
                "{meanwhile:CAMP} {c} {c~sat} alone under a tree, {c:sad.ing}.",
                '{meanwhile:CAMP} {c} {c~sat} by a very small fire. "{HELLO}," {c.he} said to a beetle, {c:sad.ing}.',
            ),
        ),
        page(
            (
                "Boom, tick-a-boom! Far off, {at:CAMP}, somebody played. {a} put down {a.his} spoon.",
                "A soft sound came through the trees {at:CAMP}. {a} {a~walked} towards it. Tick-a-boom!",
            ),
            (
                "There was {c} with the {drum}, and {c.he} {c:sad}. {a} {a~sat down} and listened.",
                "{a.He} {a~stood still}. {c} played the {drum} with closed eyes, {c:sad,sleepy.ing}.",
            ),
        ),
        page(
            (
                '"{HELLO}," said {a}, very slowly. {c} {c:surprised}.',
                '{a} did not know what to say. So {a.he} said "{HELLO}". {c} {c:surprised}.',
            ),
            (
                "Then {c.he} {c~smiled} all over {c.his} face, {near:so close} that {a} had to smile, too.",
                '"{HELLO}!" said {c}, {near:nose to nose} with {a}, {c:happy.ing}. That was how you said it where {c.he} came from.',
            ),
        ),
        page(
            (
                "Back {at:HOME}, {a} pulled out {a.his} own chair and bowed to {c}.",
                "[{ac}|{ac.They}] {ac~walked} back {to:HOME}. {a} pushed {a.his} own chair across to {c}.",
            ),
            (
                '"And where do you sit?" asked {b}, {b:angry.ing}. "Half here," said {a}, and {a~sat down} on the edge.',
                '"But there are ten chairs!" said {b}, {b:surprised.ing}. "A chair has two halves," said {a}. {c} {c~sat down}.',
            ),
        ),
        page(
            (
                "{c} ate three bowls of {DISH}. Then {c.he} took the {drum}. Tick-a-boom!",
                "{t:night} {c} played the {drum}, first softly, and then so that the plates hopped.",
            ),
            (
                "{a} {a~danced}. The toes of {b} twitched, and then {b.he} {b~danced}, too.",
                '"My feet are doing that by themselves!" said {b}, {b:surprised.ing}. {a} {a~danced} with {b.him}.',
            ),
        ),
        page(
            (
                '{b} {b~sat down} beside {c}, out of breath. "I was not nice to you," {b.he} said.',
                '"I am sorry," said {b} {b:sad.ly}. {c} did not know that word either. But {c.he} knew that face.',
            ),
            (
                '"{HELLO}," said {c}, {c:happy,waving.ing}. It also meant "never mind". {a} {a:happy}.',
                '{c} gave {b.him} the sticks. "{HELLO}," {c.he} said. {b} {b:surprised}, and then {b.he} {b:happy}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} {b} sawed and hammered {at:HOME}. It was a chair, the eleventh one.",
                "{t:nextday} there was a new chair at the long table {at:HOME}. {b} had made it.",
            ),
            (
                "{c} {c~sat down} on it and {c~wept} a little for joy. {a} {a:cheering}.",
                '"Better make a twelfth," said {a}, {a:happy,waving.ing}. "You never know who comes." {c} {c:cheering}.',
            ),
        ),
    ),
)

HIDE = Plot(
    name="hide and seek till dark",
    titles=("Hide and Seek", "{b} Hides Too Well", "Ninety-Nine, a Hundred", "Where Is {b}?"),
    cast="ab",
    values={
        "HOME": ("village", "garden", "meadow"),
        "LOOK": ("forest", "pond"),
        "NEST": ("kitchen", "bedroom"),
        "SPOT": ("the laundry chest", "the big cupboard", "the flour bin", "the log box"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} knew the best game in the world: hide and seek. {a.He} {a~jumped up and down}. But with whom?",
                "{a.He} looked under the bench, behind the well and in a {basket}. {a.He} {a:happy}. {a.He} loved to seek!",
            ),
        ),
        page(
            (
                "Luckily there was {b.new}.",
                "And best at hiding was {b.new}.",
            ),
            (
                '"You will never find me!" said {b}, {b:happy,waving.ing}. {a} {a~laughed}. "I always find you!"',
                '"Count to a hundred," said {b}, {b:happy,waving.ing}. "And no peeping!" {a} {a~sat down} and shut {a.his} eyes.',
            ),
        ),
        page(
            (
                '"One, two, three," counted {a}. {b} {b~tiptoed} {to:NEST} on the tips of {b.his} toes.',
                '"Ninety-nine, a hundred!" called {a}. By then {b} had {b~crept} {to:NEST}.',
            ),
            (
                "{b.He} slipped into {SPOT} and pulled it shut, {b:happy.ing}. {b.He} was as small as a dumpling.",
                "Into {SPOT} {b.he} went, and nothing of {b.him} could be seen. {b.He} {b:happy}.",
            ),
        ),
        page(
            (
                "{a} {a~ran} {to:LOOK} and looked behind every tree.",
                "{to:LOOK} {a} {a~ran} first, for that was where {b} always hid.",
            ),
            (
                "{a.He} bent over a hole, {near:so close} that a cricket hopped on {a.his} nose. No {b}! {a.He} {a:surprised}.",
                "{a.He} looked {near:closely} at a heap of leaves. It was only a heap of leaves. {a.He} {a:surprised}.",
            ),
        ),
        page(
            (
                '"I give up!" called {a} {at:LOOK}. "Come out!" Nobody came. {a.He} {a:angry}.',
                "{a} {a~walked} round and round {at:LOOK}. {a.He} {a:sad}.",
            ),
            (
                "{meanwhile:NEST} {b} heard nothing at all. It was warm and dark. {b.He} {b:sleepy}.",
                "{meanwhile:NEST} {b} listened for footsteps, {b:sleepy.ing}.",
            ),
        ),
        page(
            (
                "{t:dusk} {a} {a~ran} {to:HOME} and asked everyone. Nobody had seen {b}.",
                "{t:dusk} {a} {a~climbed} on a fence {at:HOME}. Nobody there, {wide:as far as the eye could see}!",
            ),
            (
                '"What if the game has eaten my friend?" {a.he} said {a:sad.ly}.',
                "It was not a game any more. {a.He} {a~wept} a little.",
            ),
        ),
        page(
            (
                "{a} took a {lantern} and searched on {at:LOOK}.",
                "{a} {a~walked} up and down {at:LOOK} with a {lantern} and called.",
            ),
            (
                '{a.He} {a:sleepy}. "I won\'t go to bed without you," {a.he} said into the dark.',
                '"You have won!" {a.he} called. "You are the best hider of all!" {a.He} {a~sat down}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:night} {a} came {to:NEST}. {a.He} {a:sleepy}. And then something sneezed.",
                "{t:night}, {at:NEST}, {a} {a~sat down}, {a:sad,sleepy.ing}. Then there was a noise. Hatchoo!",
            ),
            (
                "It came from {SPOT}. {a} {a:surprised}.",
                "Who sneezes in {SPOT}? {a} {a:surprised} and held up the {lantern}.",
            ),
        ),
        page(
            (
                "{a} opened {SPOT}, and there, curled up like a snail, was {b}.",
                "Out of {SPOT} rolled {b}, with fluff on {b.his} nose.",
            ),
            (
                '{b} {b~yawned}. "Have you counted to a hundred yet?" {a} {a~laughed} and {a~wept} at once.',
                '"Found you!" {a} {a:cheering}. {b} {b~rubbed HIS tired eyes}. "That took a while," {b.he} said.',
            ),
        ),
        page(
            (
                '"I was afraid," said {a}. {b} {b:surprised}. "Of what?" "That I would have to seek for ever."',
                '"I fell asleep," said {b}, {b:sad.ing}. "I am sorry." {a} hugged {b.him} so hard that {b.he} squeaked.',
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} on the floor, {near:cheek to cheek}, and shared an apple.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~laughed} until the fluff flew.",
            ),
        ),
        page(
            (
                "{t:nextday} {ab} played it again {at:HOME}, but with a new rule.",
                "{t:nextday} {ab} met {at:HOME} for another game. This time {a} hid.",
            ),
            (
                'Who hides must sing. "La, la!" sang the {basket}, and {b} {b~laughed}. "I wonder where you are!"',
                '"You must leave one foot out," said {b}, {b:happy,waving.ing}. One foot stuck out of the {basket}. {a} {a~giggled}.',
            ),
        ),
    ),
)

PARCELS = Plot(
    name="the mixed-up parcels",
    titles=("The Mixed-Up Parcels", "Postman's Luck", "{a} Brings the Post", "Rain on the Labels"),
    cast="abc",
    held_out=True,
    values={
        "HOME": ("village", "garden", "meadow"),
        "FIRST": ("mountain", "snowfield"),
        "SECOND": ("beach", "pond"),
        "ONE": ("drum", "kite"),
        "TWO": ("book", "lantern"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "It was {a.his} first day with the post. {a.He} put two parcels into a {basket} and {a~marched} off.",
                '{a.He} had a new job. With a {basket} of parcels on {a.his} arm {a.he} {a:cheering}. "The post! The post!"',
            ),
        ),
        page(
            (
                "Then it rained. {a} put the {basket} under a tree {at:forest}, but the labels were already wet.",
                "{To:forest} {a} {a~ran}, out of the rain. Drip, drip, it fell on the labels in the {basket}.",
            ),
            (
                "The ink had run. Which parcel was which? {a} {a:surprised}.",
                '"This one says blob, and that one says blot," {a.he} said, {a:sad,surprised.ing}.',
            ),
        ),
        page(
            (
                "{a} {a~climbed} {to:FIRST} first. There lived {b.new}.",
                "{to:FIRST} {a} {a~climbed}, and rang the bell of {b.new}.",
            ),
            (
                '{b} {b:sleepy}. "I have ordered a {TWO}," {b.he} said. "Something quiet." {a} {a~waved}. "Here it is!"',
                '"That will be my {TWO}!" said {b}, {b:happy,waving.ing}. {a} gave {b.him} the parcel and {a~ran} on.',
            ),
        ),
        page(
            (
                "Then {a} {a~walked} {to:SECOND}. In a house by the water lived {c.new}.",
                "The road went on {wide:as far as the eye could see}. {to:SECOND} {a} {a~walked}. There lived {c.new}.",
            ),
            (
                '"At last! My {ONE}!" called {c}, {c:cheering,waving.ing}. {a} {a:happy}.',
                '{c} {c~danced} on the step. "I have wished for a {ONE} all year!" {a} gave {c.him} the parcel.',
            ),
        ),
        page(
            (
                "{c} tore off the string {at:SECOND}. In the paper lay a {TWO}. {c.He} {c:angry}.",
                "Rip, rip! There was a {TWO} in the parcel {at:SECOND}. {c} {c:sad,angry}.",
            ),
            (
                "{meanwhile:FIRST} {b} unpacked a {ONE}. {b.He} {b:surprised,angry}.",
                "{meanwhile:FIRST} {b} held a {ONE} upside down. {b.He} {b:angry,surprised}.",
            ),
        ),
        page(
            (
                "{t:dusk} {a} {a~sat} {at:HOME} and read the wet labels once more, {near:closely}, one by one.",
                "{t:dusk}, {at:HOME}, {a} held a label {near:so close} that it stuck to {a.his} nose.",
            ),
            (
                '"Oh no," {a.he} said {a:sad.ly}. "I mixed up the parcels!"',
                "{a.He} {a:surprised}. Blob was blot, and blot was blob! {a.He} {a~wept}.",
            ),
        ),
        page(
            (
                "{t:nextday} {a} {a~ran} {to:FIRST} to say sorry. But what was that noise?",
                "{t:nextday} {a} {a~hurried} {to:FIRST}. From far off {a.he} heard laughter.",
            ),
            (
                '{b} {b~danced} up and down with the {ONE}. "I never knew that I like noise!" {b.he} called.',
                '"You cannot have it back!" said {b}, {b:cheering,waving.ing}, and held the {ONE} tight. {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "Then {a} {a~ran} {to:SECOND}. It was very quiet there.",
                "{to:SECOND} {a} {a~walked}, on tiptoe. Not a sound came from the house.",
            ),
            (
                '{c} {c~sat} beside the {TWO}. "Hush," {c.he} said, {c:happy.ing}. "I never sat still before." {a} {a:surprised}.',
                '"I am sorry," said {a}. "Do not be," said {c}. {c.He} {c~sat} there with the {TWO}, {c:sleepy,happy.ing}.',
            ),
        ),
        page(
            (
                '"But then what do I do with the right labels?" asked {a}. {c} {c~laughed}.',
                '"So the wrong one was the right one," said {a}. {a.He} {a:surprised}.',
            ),
            (
                '"Write to me," said {c}, "and I will write to the other one." {a} {a~jumped for joy}. More post!',
                '{c} wrote a card to {b}: "Thank you for my {TWO}." {a} {a:cheering} and put it in the {basket}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} {a} invited {bc} {to:HOME}, the loud one and the quiet one.",
                "{t:dusk} {bc} came {to:HOME} and met for the very first time.",
            ),
            (
                '"You have my {ONE}," said {c}. "And you have my {TWO}," said {b}. [{bc}|{bc.They}] {bc~laughed}.',
                "First it was loud, and then it was quiet. {a} {a~sat} in between, {a:happy,sleepy.ing}.",
            ),
        ),
        page(
            (
                "{t:nextday} the sky {at:HOME} was blue, and {a} {a~marched} off with the {basket}.",
                "{t:nextday} there was a full {basket} {at:HOME} again. {a} {a:happy} and took it on {a.his} arm.",
            ),
            (
                '{a.He} had written every label twice, in wax. "The post!" {a.he} called, {a:waving.ing}. "The right post!"',
                '"What if it rains?" asked {b}, {b:happy,waving.ing}. "Then it will be a surprise," said {a}.',
            ),
        ),
    ),
)

PLOTS = (STRANGER, HIDE, PARCELS)
