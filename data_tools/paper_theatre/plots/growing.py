"""Stories of an invention, of a garden through the seasons, and of high water."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

INVENTION = Plot(
    name="the machine that would not",
    titles=("The Machine That Would Not", "{a} the Inventor", "Clank, Clank, Plonk", "What Is It For?"),
    cast="ab",
    values={
        "HOME": ("garden", "village", "meadow"),
        "FRUIT": ("apple", "pear", "plum", "cherry"),
        "PART": ("a bicycle wheel", "an old clock", "a mangle", "a coffee mill"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "The {FRUIT} tree was tall, and {a} was short. {a.He} {a~jumped}, but {a.he} could not reach one.",
                "High up hung the ripest {FRUIT} of all. {a.He} looked up at it, and {a.he} {a:angry}.",
            ),
        ),
        page(
            (
                '"I shall build a machine to pick it," said {a}. {a.He} took {PART} and an {umbrella}.',
                "{a} had an idea. {a.He} {a~ran} for {PART}, a rope and an {umbrella}.",
            ),
            (
                "Clank, clank, clank! {a.He} hammered and screwed, {a:happy.ing}.",
                "{a.He} worked until {a.his} ears were full of grease, and {a.he} {a:happy}.",
            ),
        ),
        page(
            (
                "All that clanking brought {b.new}.",
                "Over the fence looked {b.new}.",
            ),
            (
                '"What does it do?" asked {b}. "It picks a {FRUIT}," said {a}. {b} {b:surprised}.',
                '{b} {b~laughed}. "It looks like a coat stand that swallowed a bicycle!" {a} {a:angry}.',
            ),
        ),
        page(
            (
                "{a} pulled the lever. Clank, clank, plonk! A screw fell off, and that was all.",
                "{a} turned the crank. It hissed, it hopped, and it fell over.",
            ),
            (
                '{a.He} {a:sad}. "Maybe it is shy," said {b}, {b:happy,waving.ing}.',
                "{a.He} {a~stamped HIS foot}. {b} picked up the screw and {b:surprised}. It was still hot.",
            ),
        ),
        page(
            (
                "{ab.They} looked {near:closely} at every wheel. One of them was turning the wrong way.",
                "[{ab}|{ab.They}|{ab.friends}] put their heads inside, {near:cheek to cheek}, and counted the wheels.",
            ),
            (
                '"Why are you helping?" asked {a}, {a:surprised.ing}. "I like {FRUIT} jam," said {b}.',
                '"There it is!" called {b}, {b:happy,waving.ing}. "A wheel with no job." {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "{t:dusk} {a} pulled the lever again. This time the machine woke up, and threw the {umbrella} over the roof.",
                "{t:dusk} {b} was allowed to pull. Whoosh! Off flew the {umbrella}, and not one {FRUIT} fell.",
            ),
            (
                '{a} {a:sad}. "I am no inventor," {a.he} said. "You are," said {b}. "It throws very well."',
                "{a} {a~sat down} with {a.his} back to it. {b} {b~sat} with {a.him}, {b:sleepy.ing}.",
            ),
        ),
        page(
            (
                "{t:night} {a} lay awake {at:bedroom}. Clank, clank, said the thoughts in {a.his} head.",
                "{t:night} {a} {a~walked} up and down {at:bedroom}.",
            ),
            (
                '"It will not pick," {a.he} said, {a:sleepy.ing}, "but it throws. What can one throw?"',
                'Then {a.he} {a~jumped} up. "It throws! It throws! Of course!"',
            ),
        ),
        page(
            (
                "{t:nextday} {a} {a~ran} {to:HOME} and turned the machine upside down. On top {a.he} put the {ball}.",
                "{t:nextday} {ab} {ab~hurried} {to:HOME}. {a} turned the arm round and laid a {ball} in it.",
            ),
            (
                '"Ready?" asked {a}. "Ready!" said {b}, {b:waving.ing}.',
                "{b} put {b.his} fingers in {b.his} ears. {a} counted to three.",
            ),
        ),
        page(
            (
                "Whoosh! The {ball} flew into the tree, and down came one {FRUIT} after another.",
                "Up shot the {ball}, right into the highest branch. It rained and rained from the {FRUIT} tree.",
            ),
            (
                '{a} {a:cheering}. {b} caught three at once. "It works!" {b.he} shouted, {b:cheering.ing}.',
                "One landed on the head of {b}. {b.He} {b:surprised}, and {a} {a:cheering}.",
            ),
        ),
        page(
            (
                "There was a {basket} for {a}, and there was a {basket} for {b}. [{ab}|{ab.They}] {ab~sat down} to eat.",
                "Soon the {basket} was full up to the top, and {ab} {ab~sat} beside it with sticky chins.",
            ),
            (
                '"What shall we call it?" asked {b}, {b:sleepy.ing}. "The Wouldn\'t," said {a}, "because now it would."',
                '"And what does it do on Sundays?" asked {b}. "It rests," said {a}, {a:happy,sleepy.ing}.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} one single {FRUIT} was left {at:HOME}, on the lowest branch, and {a} could reach it.",
                "{t:dusk} only the ripest {FRUIT} still hung {at:HOME}. {b} {b~sat down}, and {a} stepped on {b.his} shoulders.",
            ),
            (
                "No machine at all! {a} broke it in two and gave {b} the bigger half. {b} {b:happy}.",
                '"Why did we not do that at once?" asked {b}. {a} {a~laughed}. "It would not have gone clank!"',
            ),
        ),
    ),
)

GARDEN = Plot(
    name="a seed through the seasons",
    titles=("A Seed through the Seasons", "{a} Waits", "Nothing, Nothing, Something", "The Tallest Flower"),
    cast="ab",
    values={
        "SEED": ("striped", "round", "pointed", "speckled"),
        "NICK": ("Bartholomew", "Mister Green", "Lady Leaf", "Little Nothing"),
    },
    beats=(
        page(
            opening("oneday", "garden"),
            (
                "{a.He} had found a {SEED} seed in {a.his} pocket. Nobody knew what it was. {a.He} {a:surprised}.",
                "In the bottom of {a.his} {basket} lay a {SEED} seed. {a.He} {a:cheering} and dug a hole.",
            ),
        ),
        page(
            (
                "From the other side of the fence came {b.new}.",
                "At the fence was {b.new}.",
            ),
            (
                '"What will it be?" asked {b}, {b:waving.ing}. "Big," said {a}, {a:happy.ly}.',
                '"Throw it away," said {b}, {b:sleepy.ing}. "It is only a crumb." {a} {a:angry}.',
            ),
        ),
        page(
            (
                "{t:nextday} {a} {a~ran} out. Nothing. The next week there was nothing. {a.He} {a:angry}.",
                "Every day {a} {a~sat} in front of the bare brown earth, {near:so close} that {a.he} sneezed.",
            ),
            (
                '"Grow!" {a.he} shouted. "You cannot shout it out," said {b}. {b.He} {b:happy}.',
                '"Does it move?" asked {b}. "No," said {a} {a:sad.ly}. {b} {b~yawned}.',
            ),
        ),
        page(
            (
                "Spring came, and {a} bent down {near:so close} that {a.his} nose was in the mud. There was a green dot!",
                "One day {a} looked {near:closely} at the ground. Something green looked back, as small as a comma.",
            ),
            (
                '"{b}! It is here!" {a} {a:cheering}. "I call it {NICK}."',
                '{a} {a:surprised}. {a.He} did not dare to breathe. "Good morning, {NICK}," {a.he} whispered.',
            ),
        ),
        page(
            (
                "Summer came, and it was hot. {a} {a~ran} {to:pond} with a {basket} lined with wax cloth.",
                "All summer no rain fell. {a} {a~walked} {to:pond} for water, twice a day.",
            ),
            (
                "{b} came too, with a teapot, {b:happy.ing}. It was a long way, and {a} {a:sleepy}.",
                '"My teapot holds more than you think," said {b}. {b.He} {b~hurried} along. {a} {a:happy}.',
            ),
        ),
        page(
            (
                "By August it was taller than {a}. {ab} {at:garden} had to look up to say good day.",
                "{At:garden}, {a} measured it with {a.his} arms. It was taller than {ab} together.",
            ),
            (
                '{b} {b:surprised}. "That was no crumb," {b.he} said. {a} {a~beamed}.',
                '"It will bump into the clouds," said {b}, {b:surprised.ing}. {a} {a:cheering}.',
            ),
        ),
        page(
            (
                "And {t:dusk} it opened. It was a sunflower, as big as a cartwheel.",
                "Then, {t:dusk}, it opened one yellow petal after the other, like a parasol.",
            ),
            (
                "{a} {a~danced} round it, and {b} {b~sat} under it until it grew dark.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~stood still} and said nothing. It was as if someone had put on a light.",
            ),
        ),
        page(
            (
                "Autumn came, and {t:night} the wind blew. {a} tied the flower to a stick and {a~sat down} beside it.",
                "Autumn came, and {t:night} there was a storm. {a} {a~ran} out with a {lantern}.",
            ),
            (
                '"Do not be afraid, {NICK}," {a.he} said, {a:sleepy.ing}. Crack! The stalk broke, and {a} {a:sad}.',
                "{b} held it on one side, {a} held it on the other, and still it broke. {a} {a:sad}.",
            ),
        ),
        page(
            (
                "{t:nextday} the flower lay on the ground. {a} {a~sat down} beside it and {a:sad}.",
                "{t:nextday} there was snow {at:garden}, and no {NICK}. {a} {a:sad}.",
            ),
            (
                '"Look in its face," said {b}. {a} {a:surprised}. It was full of seeds, hundreds and hundreds!',
                "{b} took {a.his} hand and shook the big brown head. Seeds rained into the {basket}. {b} {b:cheering}.",
            ),
        ),
        page(
            (
                "All winter {ab} put seeds into little bags {at:kitchen}, one for each house.",
                "{At:kitchen} {ab} {ab~sat} by the stove all winter and counted seeds into paper bags.",
            ),
            (
                '"Ninety-nine," said {b}, {b:sleepy.ing}. "A hundred," said {a}, {a:happy,waving.ing}.',
                "{b} {b~dozed} at seventy, and {a} {a~giggled} and began again.",
            ),
            optional=True,
        ),
        page(
            (
                "When spring came back, {ab} {ab~walked} round {the:garden}, and there was a green dot. And another! And another!",
                "In spring {ab} sowed them {at:garden} and on both sides of the fence.",
            ),
            (
                '"What will it be?" asked {b}, {b:happy,waving.ing}. "Big," said {a}. [{ab}|{ab.They}] {ab~sat down} to wait.',
                '"Nothing yet," said {b}, and {b:happy}. "Nothing is how it begins," said {a}, {a:waving,happy.ing}.',
            ),
        ),
    ),
)

FLOOD = Plot(
    name="high water",
    titles=("High Water", "The Bathtub Rescue", "{c} on the Roof", "It Rained for Seven Days"),
    cast="abc",
    values={
        "HOME": ("village", "garden", "meadow"),
        "DRY": ("mountain", "forest"),
        "SAVED": ("cuckoo clock", "pot of jam", "goldfish bowl", "feather pillow"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "It had rained for seven days. {a.He} {a~sat} on the fence under an {umbrella}, {a:sad,sleepy.ing}.",
                "For seven days it had rained. {a.He} held up an {umbrella} and looked at the puddles. {a.He} {a:angry}.",
            ),
        ),
        page(
            (
                "Through the wet grass came {b.new}.",
                "Up to the knees in water came {b.new}.",
            ),
            (
                '"The pond has got up and gone for a walk!" shouted {b}, {b:surprised.ing}. {a} {a:surprised}.',
                '{b.He} {b~ran}. "The water is coming!" {b.he} called. "It is already in my slippers!" {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "Soon there was no road any more, only water {wide:as far as the eye could see}.",
                "The water rose. It lay grey {wide:under the wide sky}, and chairs went sailing by.",
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~climbed} on a cart. {a} {a:sad}.",
                "{a} {a~climbed} on the wall and pulled {b} up. {b.He} {b:sad,surprised}.",
            ),
        ),
        page(
            (
                "Then there was a voice. On the roof of the mill was {c.new}.",
                "Somebody called. Up on a roof was {c.new}.",
            ),
            (
                '{c} {c~waved}. "I have saved my {SAVED}," {c.he} called, "but who saves me?" {a} {a~jumped} up.',
                '{c.He} {c~sat} on the chimney with a {SAVED} in {c.his} arms, {c:sad.ing}. "Hold on!" shouted {b}.',
            ),
        ),
        page(
            (
                '"We need a boat," said {b}. But nobody had one. {a} {a:sad}.',
                "{b} looked for a raft, and there was none. {b.He} {b:sad}.",
            ),
            (
                'Then a bathtub came floating by. "There it is!" said {a}, {a:cheering,waving.ing}.',
                '"What about that?" asked {a}, {a:surprised.ing}. It was a bathtub with a yellow sponge in it.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat down} in the bathtub, and {a} opened the {umbrella} for a sail.",
                "{a} {a~sat} at the front with the {umbrella}, and {b} {b~sat} at the back with a soup ladle.",
            ),
            (
                "The wind blew. It spun round and round, until {b} found out how to steer. {b.He} {b:happy}.",
                '"Left!" called {a}. "That was left!" said {b}, {b:angry.ing}. "Then right!"',
            ),
        ),
        page(
            (
                "Under the roof the water pulled hard. {a} held on to the gutter.",
                "Bump! The bathtub hit the wall. {a} held on with both hands.",
            ),
            (
                "{c} looked down, {near:face to face} with {a}, and did not dare to let go. {c.He} {c:sad}.",
                '"Do not look down," said {a}, {near:so close} that {c} could hear it. "Look at me." {c} {c:sad}.',
            ),
            optional=True,
        ),
        page(
            (
                '"First the {SAVED}," said {c}. "First you!" said {b}. And {c} {c~jumped}. Plop!',
                "One, two, three! {c} let go and landed in the middle of the tub. {c.He} {c:surprised}.",
            ),
            (
                "And the {SAVED} came down on {a}. {a.He} {a~grumbled}, but nothing was broken.",
                "It rocked and it dipped, and it held. {a} {a:cheering}, and {b} {b:cheering}.",
            ),
        ),
        page(
            (
                "{t:dusk} {abc} came {to:DRY}, where it was dry.",
                "{t:dusk} the bathtub ran aground. {abc} {abc~climbed} out {at:DRY}.",
            ),
            (
                "{c} {c:sleepy}, {b} {b~sat down} on the sponge, and {a} emptied {a.his} boots.",
                '"Thank you," said {c}, and {c.he} {c~wept} a little. {b} {b:sleepy}. {a} {a~sat down} with a bump.',
            ),
        ),
        page(
            (
                "{t:night} {abc} {abc~sat} under the {umbrella} and shared three biscuits.",
                "{t:night} a little fire burned, and {abc} {abc~sat} round it with wet socks on sticks.",
            ),
            (
                '"I was afraid," said {c}. "So was I," said {a}, {a:sleepy.ing}. "Me too," said {b}, {b:happy,waving.ing}.',
                "The rain grew thin. {c} {c~yawned}, and {b} {b~yawned}, and then it was still.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} the sun was out, and the water went home. {abc} {abc~walked} {to:HOME}.",
                "{t:nextday} {abc} were back {at:HOME}. There was mud up to the windows, and a blue sky.",
            ),
            (
                "{c} put the {SAVED} on the fence to dry. {a} closed the {umbrella} and {a:cheering}.",
                '"Where does the bathtub go?" asked {b}, {b:happy,waving.ing}. "Nowhere," said {a}. "You never know." {c} {c~laughed}.',
            ),
        ),
    ),
)

PLOTS = (INVENTION, GARDEN, FLOOD)
