"""Stories of a secret, of a mistake, and of a cake that nobody was to see."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

SECRET = Plot(
    name="the secret of the book",
    titles=("The Secret of the Book", "{b} Cannot Say It", "The Upside-Down Book", "A Secret for Two"),
    cast="abc",
    values={
        "HOME": ("garden", "meadow", "village"),
        "HIDE": ("forest", "pond"),
        "WORD": ("moss", "jam", "plum", "nest", "soup"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "It was story hour, and it was {a.his} turn to bring the {book}. {a.He} {a~hurried}.",
                "{a.He} {a~sat} on a rug with a thick {book}. At story hour everyone read one page, and {a.he} {a:happy}.",
            ),
        ),
        page(
            (
                "Beside {a.him} was {b.new}.",
                "On the same rug was {b.new}.",
            ),
            (
                '"It is your turn," said {a}. {b} {b~jumped up}. "I have a tummy ache," {b.he} said. {a} {a:surprised}.',
                '{b} held the {book} upside down. "Once there was a, well, a thing," {b.he} said. {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "Then it was the turn of {c.new}.",
                "Next in line was {c.new}.",
            ),
            (
                '{c} {c~grinned}. "{b} always has a tummy ache at story hour!" {c.he} said. {b} {b:angry} and {b~ran} away.',
                '"That was last week\'s tummy ache," said {c}, {c:surprised.ing}. {b} {b~ran} off, {b:sad.ing}.',
            ),
        ),
        page(
            (
                "{a} {a~walked} after {b} {to:HIDE}. {b} {b~sat} behind a tree, all by {b.self}.",
                "{to:HIDE} {a} {a~ran}. {b} {b~sat} there among the ferns.",
            ),
            (
                '"I do not have a tummy ache," said {b} {b:sad.ly}. {a} {a~sat down} too, and asked nothing.',
                '"Go away," said {b}, {b:angry,sad.ing}. {a} {a~sat down}. "I am away," {a.he} said. "I am away here."',
            ),
        ),
        page(
            (
                "{b} bent {near:so close} that {a} could feel {b.his} breath.",
                "{b} looked left and right and came {near:so close} that {a} could count {b.his} eyelashes.",
            ),
            (
                '"I cannot read," {b.he} whispered, {b:sad.ing}. "You must not tell." {a} {a:surprised}.',
                '"It is a secret," {b.he} whispered. "The letters dance, and I cannot read them." {b.He} {b:sad}.',
            ),
        ),
        page(
            (
                '"A secret is safe with me," said {a}. {a.He} drew a big round letter in the sand with a stick.',
                "{a} did not laugh. {a.He} took a stick and drew the letter M in the sand, as big as a bed.",
            ),
            (
                '"It cannot dance if you walk on it," {a.he} said. {b} {b~walked} along the line, {b:surprised.ing}.',
                '"Walk along it, and say what it says," said {a}. {b} {b~marched} up and down. "Mmm!" {b.he} said.',
            ),
        ),
        page(
            (
                "{t:nextday} {ab} met again {at:HIDE}, and the day after that, and the one after that.",
                "From then on, every morning, {ab} {ab~ran} {to:HIDE} with a stick and the {book}.",
            ),
            (
                '"I will never learn it," said {b}, {b:angry,sad.ing}. "Yesterday you could not do S," said {a}. "Now you hiss."',
                "Some letters {b} liked, and some {b.he} did not. {b.He} {b~stamped HIS foot} on every Q.",
            ),
        ),
        page(
            (
                '{c} saw them go. {c.He} {c~tiptoed} up. "What are you two doing?" {c.he} asked.',
                'Once {c} {c~crept} up behind them. "What is the secret?" {c.he} asked.',
            ),
            (
                '"We are, well, walking," said {a}. {c} {c:surprised}. {b} {b:happy} and held {a.his} hand.',
                "{a} said not a word. {c} {c:angry}, but a promise is a promise. {b} {b:happy}.",
            ),
            optional=True,
        ),
        page(
            (
                "Then, {t:dusk}, {b} {b~stopped}. On a sign {at:HIDE} there were letters that did not dance.",
                "Then, {t:dusk}, {b} held the {book} the right way up and moved one finger along the line.",
            ),
            (
                '"{WORD}," {b.he} read. "It says {WORD}!" {b.He} {b~jumped for joy}, and {a} {a:cheering}.',
                '"{WORD}!" {b} {b~gasped}. "I have read {WORD}!" {a} {a~danced} round {b.him}.',
            ),
        ),
        page(
            (
                "{t:nextday} it was story hour again {at:HOME}. {c} held out the {book} to {b}.",
                "{t:nextday} {abc} {abc~sat} on the rug {at:HOME}, and the {book} went round.",
            ),
            (
                '"No tummy ache?" asked {c}. {b} {b~smiled}. {b.He} {b~stood up} and took a deep breath.',
                "It came to {b}. {a} held {a.his} breath. {b} {b~stood up}, and {b.he} was not afraid.",
            ),
        ),
        page(
            (
                "{b} read a whole page of the {book} aloud, slowly, word for word.",
                "Slowly {b} read the last page of the {book} {at:HOME}, and it had a happy end.",
            ),
            (
                '"How did you do that?" asked {c}, {c:surprised.ing}. {b} {b~waved} to {a}. "That is a secret."',
                "Nobody coughed. {c} {c:cheering}. {a} {a~sat} there and said nothing, {a:happy.ing}.",
            ),
        ),
    ),
)

MISTAKE = Plot(
    name="the broken kite",
    titles=("The Broken Kite", "{a} Did It", "A Stone in the Tummy", "Crack!"),
    cast="abc",
    values={
        "HOME": ("meadow", "garden", "village"),
        "HIDE": ("forest", "mountain"),
        "PATCH": ("curtain", "flowered tablecloth", "spotted hanky", "nightshirt"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "Against the fence leaned a fine new {kite}. It belonged to somebody else. {a.He} {a~walked} round it twice.",
                "{a.He} {a~stared} at a {kite} as blue as plums. A label said DO NOT TOUCH.",
            ),
        ),
        page(
            (
                "The {kite} belonged to {b.new}.",
                "It was the {kite} of {b.new}.",
            ),
            (
                '"Tomorrow it will fly for the first time!" said {b}, {b:happy,waving.ing}. "Please, nobody touch it."',
                '"It took me a whole winter," said {b}, {b:happy.ly}. {b.He} {b~waved} and went in for lunch.',
            ),
        ),
        page(
            (
                "Nobody was looking. {a} {a~tiptoed} up, {near:so close} that {a.he} could smell the paint, and touched the {kite}.",
                "{a} only wanted to look {near:closely}. But the {kite} was so light, and {a.he} {a~ran} with it, just a little.",
            ),
            (
                "Only for a moment. Crack! {a.He} {a:surprised}.",
                'Crack! Something was broken. "Oh dear," {a.he} whispered, {a:surprised.ing}.',
            ),
        ),
        page(
            (
                "{a} pushed the {kite} under a hedge and {a~ran} {to:HIDE}, as fast as {a.he} could.",
                "{a} put the {kite} back, broken side down, and {a~ran} {to:HIDE}.",
            ),
            (
                "{a.He} {a:sad}. It was as if {a.he} had eaten a stone.",
                '"It was the wind," {a.he} said to a tree. "It was the wind," {a.he} told a beetle. {a.He} {a:sad}.',
            ),
        ),
        page(
            (
                "{a} {a~sat} {at:HIDE} and practised what to say.",
                "All afternoon {a} {a~sat} {at:HIDE} and ate no cherries, although there were cherries.",
            ),
            (
                "{meanwhile:HOME} {b} found the {kite}. {b.He} {b~wept}.",
                '{meanwhile:HOME} {b} bent over the {kite}. "Who did this?" {b.he} asked, {b:angry,sad.ing}.',
            ),
        ),
        page(
            (
                "{At:HIDE}, {a} met {c.new}.",
                "Somebody came up the path {at:HIDE}. It was {c.new}.",
            ),
            (
                '"You look as if you had eaten a stone," said {c}. {a} {a:surprised}. "How do you know?"',
                '{c} {c~sat down} beside {a}. "Does it hurt?" {c.he} asked. "Here," said {a}, {a:sad.ing}.',
            ),
        ),
        page(
            (
                '"I once sank my uncle\'s rowing boat," said {c}. "I hid for two weeks, up to the knees in nettles."',
                '"When I was small, I ate the prize pumpkin," said {c}. "All of it. And I said it was the snails."',
            ),
            (
                '{a} {a~giggled}, and then {a.he} {a:sad}. "And then?" "Then I told it. And the stone was gone," said {c}.',
                '"What helped?" asked {a}, {a:sad.ing}. {c} {c:happy}. "Three words," {c.he} said. "It was me."',
            ),
        ),
        page(
            (
                "{t:dusk} {a} {a~walked} back {to:HOME}, with very small steps.",
                "{t:dusk} {a} {a~marched} {to:HOME}, before {a.his} feet could turn round.",
            ),
            (
                '"It was me," {a.he} said to {b}. "I broke your {kite}, and I am sorry." {b} {b:angry,sad}.',
                '{b} {b~sat} on the step beside the {kite}. "It was me," said {a}, {a:sad.ing}. {b} {b:surprised,angry}.',
            ),
        ),
        page(
            (
                "For a long time {b} said nothing. {a} {a~waited}, for that was all {a.he} could do.",
                "{b} {b~walked} up and down. {a} did not run away this time.",
            ),
            (
                '"I am very cross," said {b}, {b:angry.ing}, "but I am glad you told me." And the stone was gone.',
                '"Did you think I would eat you?" asked {b}. "A little," said {a}. And {b} {b~laughed} after all.',
            ),
        ),
        page(
            (
                "{t:night} {ab} glued the {kite} and patched it with an old {PATCH}.",
                "{t:night} {a} held the stick, and {b} sewed a piece of an old {PATCH} over the hole in the {kite}.",
            ),
            (
                '{a} {a~yawned}. "Now it has a scar," {a.he} said. "Pirates have scars," said {b}. {b.He} {b:happy}.',
                '"It is not as blue as before," said {a} {a:sad.ly}. "No," said {b}, {b:sleepy.ing}. "Now it is ours."',
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} the {kite} flew {at:HOME}. It rose until it was {wide:no bigger than a dot}.",
                "{t:nextday}, {at:HOME}, the {kite} flew {wide:under the wide sky}, with the old {PATCH} shining in the middle.",
            ),
            (
                '"Your turn," said {b}, and gave {a} the string. "You may touch it." {a} {a:cheering}.',
                '{b} {b:cheering}. "Come, touch it! Hold on tight!" And {a} {a~laughed} and {a~ran}.',
            ),
        ),
    ),
)

SHARING = Plot(
    name="a cake all to oneself",
    titles=("A Cake All to Oneself", "{a} and the Hidden Cake", "Not One Crumb", "Where Can {a} Eat?"),
    cast="abc",
    values={
        "FIRST": ("garden", "meadow"),
        "SECOND": ("forest", "pond"),
        "PEAK": ("mountain",),
        "TASTE": ("plum", "honey", "walnut", "lemon", "cherry"),
    },
    beats=(
        page(
            opening("oneday", "kitchen"),
            (
                'Out of the oven came a {TASTE} {cake}. "All for me," {a.he} said, and {a.he} {a~danced}.',
                '{a.He} had baked a {TASTE} {cake}, and it smelled so good that {a.he} {a~jumped}. "Not one crumb for anyone else!"',
            ),
        ),
        page(
            (
                "{a} put the {cake} into a {basket} and {a~tiptoed} {to:FIRST} to eat it there.",
                "{to:FIRST} {a} {a~crept}, with the {cake} in a {basket} and a cloth on top.",
            ),
            (
                "Nobody to the left, nobody to the right. {a.He} {a~sat down} and tied on a napkin.",
                '"Here nobody will see me," {a.he} said, {a:happy.ing}, and {a~sat down} behind the beans.',
            ),
        ),
        page(
            (
                "But who came along the path? It was {b.new}.",
                "Then up popped {b.new}.",
            ),
            (
                '"What is in the basket?" asked {b}, {b:waving.ing}. "Stones," said {a}, {a:surprised.ing}.',
                '{b} {b~stopped} and sniffed. "I smell {TASTE} cake," {b.he} said. {a} {a:angry}. "You smell my soap."',
            ),
        ),
        page(
            (
                "Off {a.he} {a~ran} {to:SECOND}, with the {basket} held tight.",
                "{a} {a~hurried} on {to:SECOND} and looked back over {a.his} shoulder. The {basket} grew heavy.",
            ),
            (
                "Who would come here? {a.He} {a~sat down} on a root and licked {a.his} lips.",
                '"At last!" {a.he} said, {a:happy.ing}, and lifted a corner of the cloth.',
            ),
        ),
        page(
            (
                "Then the leaves rustled. There was {c.new}.",
                "And there, on the very same spot, was {c.new}.",
            ),
            (
                '"Good day," said {c}, {c:sad.ing}. "I have had no breakfast. What have you got?" {a} {a:surprised}. "Nothing!"',
                '{c} {c~sat} there, {c:sleepy.ing}. "I was just dreaming of cake," {c.he} said. {a} {a:angry}.',
            ),
        ),
        page(
            (
                "So {a} {a~climbed} {to:PEAK}, where nobody ever went, and nobody was there.",
                "{to:PEAK} {a} {a~climbed}, up and up with the {basket}, until there was nobody at all.",
            ),
            (
                "The world lay empty {wide:as far as the eye could see}. {a.He} {a:sleepy}.",
                "The houses were {wide:far, far below}. {a.He} {a:happy}, and the wind blew through {a.his} clothes.",
            ),
        ),
        page(
            (
                "{t:dusk} {a} cut the {cake} and took a big bite. It tasted of nothing.",
                "{t:dusk} {a} {a~sat down} with the {cake} on {a.his} knees. One bite, and another one. How odd!",
            ),
            (
                '"Mm," {a.he} said aloud. Nobody said "mm". {a.He} {a:sad,surprised}.',
                "{a.He} wanted to tell somebody how good it was, and there was nobody to tell. {a.He} {a:sad}.",
            ),
        ),
        page(
            (
                "{a} thought, {at:PEAK}, of the breakfast that somebody had not had. {a.He} {a:sad}.",
                "{a} {a~sat} {at:PEAK} and looked at the {cake}. The {cake} looked back.",
            ),
            (
                "{meanwhile:SECOND} {c} shared one small nut with {b}. {bc} {bc~sat} side by side.",
                "{meanwhile:SECOND} {b} gave {c} half of an apple, and {bc} {bc:happy}.",
            ),
        ),
        page(
            (
                "Down {a} {a~ran}, faster than {a.he} had come up. {t:night} {a.he} found {b} and {c} {at:SECOND}.",
                "{t:night} {a} came {to:SECOND} with the {cake} and {a~stopped} in front of {b} and {c}.",
            ),
            (
                '"It was not stones," {a.he} said {a:sad.ly}. {b} {b~chuckled}. "We know. Stones do not smell of {TASTE}."',
                '"I told you a lie," {a.he} said, {a:sad.ing}. "Here is the nothing. It is a cake." {c} {c:surprised}.',
            ),
        ),
        page(
            (
                "[{abc}|{abc.They}|{abc.friends}] {abc~sat} in the grass, and the {cake} went round.",
                "{a} cut the {cake} in three, and every piece was the biggest.",
            ),
            (
                '"Mm!" said {b}. "Mm!" said {c}. Now {a} tasted it, too. "Mm!" {a.he} said, and {a:cheering}.',
                "{c} {c:cheering}, {b} {b:happy}, and {a} {a~beamed}, for now it tasted of {TASTE}.",
            ),
        ),
        page(
            (
                "{t:nextday} the smell of {TASTE} came out of the window again. {abc} were {at:kitchen}.",
                "{t:nextday} {abc} {abc~danced} round the oven {at:kitchen} with flour on their noses.",
            ),
            (
                '"Another {cake}?" asked {b}. "Three," said {a}, {a:happy,waving.ing}. "One for you, and one for you, and one for the neighbours."',
                '"Who gets the last crumb?" asked {c}, {c:sleepy,happy.ing}. "The beetle," said {a}. {b} {b:cheering}.',
            ),
        ),
    ),
)

PLOTS = (SECRET, MISTAKE, SHARING)
