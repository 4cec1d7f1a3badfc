"""Stories of wind, snow and storm."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

LOST_KITE = Plot(
    name="lost kite",
    titles=("The Lost Kite", "{a} and the Runaway Kite", "Where the Wind Went", "{a}, {b} and the Red Kite"),
    cast="abc",
    values={"START": ("meadow", "beach", "garden"), "SEARCH": ("forest", "pond", "village")},
    beats=(
        page(
            opening("oneday", "START"),
            (
                "{a.He} had a new {kite}, and {a.he} {a~ran} [up and down|to and fro] to make it fly.",
                "{a.His} {kite} was the [finest|brightest] for miles, and {a.he} {a:happy} as it went up.",
                "{a.He} held the string of a red {kite} and {a~laughed} as it pulled at {a.his} hand.",
            ),
        ),
        page(
            (
                "Whoosh! A [great|wild|sudden] wind came and pulled the {kite} right out of {a.his} hands.",
                "Then the wind blew so hard that the string broke, and away flew the {kite} over the trees.",
                "The wind tugged once, the wind tugged twice, and then the {kite} was gone.",
            ),
            (
                '{a} {a:surprised}. "Come back!" {a.he} called, but it only flew higher.',
                '"Come back!" called {a}. {a.He} {a:sad,angry}, for it was only a dot in the sky.',
                '{a} {a~stared} up at it. "My kite, my lovely kite!" {a.he} whispered.',
                '{a} {a~stamped HIS foot}. "You silly wind!" {a.he} called. "That was mine!"',
            ),
        ),
        page(
            (
                "{a} {a~sat down} on a stone, {a:sad.ing}. Along came {b.new}.",
                "While {a} {a~sat} there all alone, along came {b.new}.",
                "{a} {a:sad}. Just then {a.he} met {b.new}.",
            ),
            (
                '"Why so sad?" asked {b}. "The wind took my kite," said {a}.',
                '"Do not worry," said {b}, {b:happy,waving.ing}. "We will look for it, you and I."',
                '{b} listened and {b~frowned}. "What a rude wind! Let us find your kite," {b.he} said.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~hurried} {to:SEARCH} and looked [behind every bush|high and low|left and right].",
                "So {ab.they} {ab~ran} {to:SEARCH}. {b} looked up, and {a} looked down.",
            ),
            (
                '"No kite here," said {a}, {a:sad.ing}.',
                '"Nothing at all!" {b} {b~grumbled}, and {b.he} kicked a pebble.',
                '"It must be somewhere," said {b}. {a} only {a:sad}.',
                '{b} {b~sat down} and shook the sand from {b.his} shoes. "Not here either," {b.he} said.',
            ),
        ),
        page(
            (
                "A little later {ab.friends} met {c.new}.",
                "[Round the next corner|By a crooked gate] {ab} met {c.new}.",
            ),
            (
                '"I saw it!" said {c}, {c:cheering.ing}. "It flew to the mountain!"',
                '{c} {c~waved} at {ab.him}. "A kite? It flew over my head to the mountain!"',
                '{c} {c~yawned}. "Something red woke me," {c.he} said. "It went up the mountain."',
            ),
        ),
        page(
            (
                "{t:dusk} {abc} {abc~climbed} up {the:mountain}, one behind the other.",
                "Up and up {abc.they} {abc~climbed}, until {abc.they} were high {at:mountain} {t:dusk}.",
            ),
            (
                '"My legs are so heavy," said {b}, {b:sleepy.ing}.',
                '{c} {c:sleepy}. "Only a little more," said {a}.',
                '"I see no kite," said {a}. {a.He} {a:sad,angry}, but {b} took {a.his} hand.',
            ),
            optional=True,
        ),
        page(
            (
                "High {at:mountain}, in the top of a small tree, hung the {kite}!",
                "And there, {at:mountain}, something red was caught in a thorny bush. It was the {kite}!",
            ),
            (
                '"There it is!" {abc} {abc:cheering}.',
                "{a} {a:cheering}, {b} {b:waving}, and {c} {c:surprised}.",
                '{b} {b~gasped}. "Look, look!" {b.he} said, and {a} {a~jumped for joy}.',
            ),
        ),
        page(
            (
                "But the {kite} had a long tear. {a} {a:sad}.",
                "{a} took the {kite} down. Its tail was torn, and {a.he} {a:sad}.",
            ),
            (
                '"I can mend it," said {c}. {c.He} {c~sat down} with a needle and a bit of thread.',
                "{b} {b~sat} beside {a.him} and sewed it up with a blue ribbon.",
                '"A little glue, a little ribbon," said {b}, {b:happy.ly}. Soon it was as good as new.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} {abc} {abc~walked} back {to:START} with the {kite}.",
                "It was a long way home. {t:dusk} {abc.they} {abc~walked} {to:START} with the {kite}.",
            ),
            (
                '"Tomorrow we will fly it together," said {a}, {a:sleepy.ing}.',
                '{b} {b:sleepy}, but {a} {a:happy}. "Thank you," {a.he} said.',
                '{c} {c~yawned}. "What a day," {c.he} said.',
            ),
        ),
        page(
            (
                "{t:nextday} {abc} met {at:START}. This time there was a strong knot in the string of the {kite}.",
                "{t:nextday} the wind was soft. {abc} stood {at:START} and let the {kite} go.",
            ),
            (
                "{a} {a~ran} ahead, {b} {b~cheered}, and {c} {c~waved} at the clouds.",
                '{abc.they} {abc~cheered} as it went up. "Higher!" said {b}. "Higher!"',
                '"Now you hold it," said {a} to {b}. {b.He} {b~beamed}, and {c} {c~jumped for joy}.',
            ),
        ),
    ),
)

FIRST_FLIGHT = Plot(
    name="learning to fly a kite",
    titles=("{a} Learns to Fly a Kite", "Up, Up and Away", "Try Again, {a}!", "The Kite That Would Not Fly"),
    cast="ab",
    values={
        "FIELD": ("meadow", "beach", "mountain"),
        "HOME": ("village", "garden", "pond"),
        "COLOUR": ("yellow", "blue", "purple", "spotted", "golden"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.His} grandmother had sent {a.him} a {COLOUR} {kite}. {a.He} {a:surprised}.",
                "A parcel came for {a.him}, and inside was a {COLOUR} {kite}! {a} {a~jumped for joy}.",
                "{a.He} had made a {COLOUR} {kite} out of paper and sticks, and {a.he} {a:happy}.",
            ),
        ),
        page(
            (
                "{a} {a~ran} {to:FIELD} and threw the {kite} into the air.",
                '{a} {a~hurried} {to:FIELD}. "Fly!" {a.he} told the {kite}, and tossed it up.',
            ),
            (
                "Flop! It fell on its nose. {a} {a~blinked in surprise} and tried again. Flop!",
                "It went up a little, turned over twice, and fell down. {a} {a:angry,surprised}.",
                "Bump! Down it came on {a.his} head. {a.He} {a:surprised,angry}.",
            ),
        ),
        page(
            (
                "Ten times {a} tried, and ten times the {kite} fell down.",
                "{a} tried it fast and slow, but the {kite} would not stay up.",
                "Again and again {a} threw the {kite}, until {a.his} arms ached.",
            ),
            (
                'At last {a.he} {a~sat down} in a heap. "I cannot do it," {a.he} said {a:sad.ly}.',
                '{a.He} {a~stamped HIS foot}. "Stupid thing!" {a.he} shouted. "I give up!"',
                "{a.He} {a~sat down} with {a.his} back to it, {a:angry.ing}.",
            ),
        ),
        page(
            (
                "Then somebody laughed softly. It was {b.new}.",
                "Just then a friend came by. It was {b.new}.",
                "Over the hill came {b.new}.",
            ),
            (
                '{b.He} {b~waved}. "I fell down a lot too, when I was learning," said {b}.',
                '"May I tell you a secret?" asked {b}, {b:waving.ing}. "Kites like to run."',
                '"Do not be cross," said {b}. {b.He} {b~sat down} beside {a.him}. {a} {a:angry,sad}.',
            ),
        ),
        page(
            (
                '"First, feel the wind on your nose," said {b}. {a} stood up and closed {a.his} eyes.',
                '{b} licked one finger and held it up. "The wind comes from there," {b.he} said.',
                '"Where does the wind come from?" asked {b}, {b:happy,waving.ing}. {a} pointed to the clouds.',
            ),
            (
                '{a} {a:surprised}. "I never felt that before!" {a.he} said.',
                '"It tickles!" said {a}. {a.He} {a~giggled}.',
                "{a} {a~frowned} a little, for it was not easy at all.",
            ),
        ),
        page(
            (
                "Then {b} tied a long tail to the {kite} and gave {a} the string.",
                '"A {kite} needs a tail," {b} said, and tied three ribbons to the {kite}.',
                "{b} held the {kite} high above {b.his} head and counted to three.",
            ),
            (
                '"Now run!" {b.he} called. {a} {a~ran} as fast as {a.he} could.',
                "{a} {a~ran} against the wind, with {a.his} heart going thump, thump, thump.",
                '{b} {b~waved one arm}. "Run, {a}, run!" And {a} {a~ran}.',
            ),
        ),
        page(
            (
                "It wobbled. It dipped. {a} {a~stopped} too soon, and down it came once more.",
                "Up it went, but then {a} tripped over a root and {a~sat down} with a bump.",
            ),
            (
                '"Almost!" said {b}, {b:happy,waving.ing}. "Once more!"',
                '{a} {a~sighed}, but {b} {b~waved}. "That was much better!" {b.he} called.',
                '{a} {a:angry}. "Try again," {b} said. "It wants to fly."',
            ),
            optional=True,
        ),
        page(
            (
                "And then the {kite} rose, up and up, over the treetops!",
                "And this time the wind caught the {kite} and lifted it high into the blue.",
            ),
            (
                '"It flies!" {a} {a:cheering}. {b} {b:cheering,waving}.',
                "{a} {a~gasped}. {b} {b~jumped up and down}.",
                '{a} {a~stared} at it. "Is that really me?" {a.he} whispered, and {b} {b~laughed}.',
            ),
        ),
        page(
            (
                "{t:day} {ab} flew the {kite} in turn, {at:FIELD}, high and low and round and round.",
                "{t:day} the {kite} sailed above the clouds. {ab} took turns with the string.",
            ),
            (
                "{b} {b~skipped} in circles, and {a} {a~laughed}.",
                '{a} {a~waved} to a bird. "Look at us!" {a.he} called.',
                "Then {ab.they} {ab~sat down} in the grass and looked at the clouds.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} {ab} wound up the string. {a} {a:sleepy}.",
                "{t:dusk} the wind lay down to sleep, and {ab} {ab~sat down} beside the {kite}.",
            ),
            (
                '"Thank you for the secret," said {a}, {a:happy,waving.ing}.',
                '{b} {b:sleepy}. "You never gave up," {b.he} said.',
                '"Tomorrow you fly it first," said {a}.',
            ),
        ),
        page(
            (
                "{t:nextday} {a} was {at:FIELD} again, and a small crowd came to look at the {kite}.",
                "{t:nextday} {ab} {ab~walked} {to:FIELD} with the {kite}.",
            ),
            (
                '"How do you do it?" asked a little mole. {a} {a~smiled}. "First, feel the wind," {a.he} said.',
                "{a} {a:cheering}, because it went up on the very first try.",
                '"Flop first, then fly," said {a} {a:happy.ly}, and up it went.',
            ),
        ),
    ),
)

STORM = Plot(
    name="storm on the mountain",
    titles=("Storm on the Mountain", "The Longest Night of {a}", "{a} and {b} in the Storm", "The Light in the Dark"),
    cast="abc",
    values={"HOME": ("village", "meadow", "garden"), "FOOD": ("nuts", "apples", "honey buns", "cheese", "berries")},
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} packed a {basket} with {FOOD} and took an {umbrella}. Today {a.he} would see the top of the world.",
                '"Today I will go up to the very top," {a.he} said, and {a.he} filled a {basket} with {FOOD}.',
            ),
        ),
        page(
            (
                "{a.His} friend was {b.new}.",
                "At the gate {a.he} met {b.new}.",
            ),
            (
                '"Take me with you!" said {b}, {b:cheering.ing}. {a} {a~laughed} and nodded.',
                '"Is it far?" asked {b}, {b:sleepy.ing}. {a} {a~smiled}. "Not so very far."',
                '{b} {b~frowned} at the clouds. "It will rain," {b.he} said. But {a} only {a~laughed}.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] {ab~marched} up {the:mountain}, singing a song with [nine|a hundred|twenty] verses.",
                "Up {the:mountain} {ab.they} {ab~climbed}, past the last house and the last tree.",
            ),
            (
                "{b} {b~waved} at the tiny houses far below.",
                '"Look how small everything is!" {b} {b:surprised}.',
                "At a big rock {ab.they} {ab~sat down} and ate the {FOOD} out of the {basket}.",
            ),
        ),
        page(
            (
                "Then the sky turned black. Boom, went the thunder, and {b} {b~gasped}.",
                "A drop fell, then a hundred drops. Boom! {a} {a~stared} at the lightning.",
            ),
            (
                '"This was your idea!" said {b} {b:angry.ly}. {a} did not know what to say.',
                '"I want to go home," said {b}. {b.He} {b:sad}, and {a} held {b.his} hand.',
                "[{ab}|{ab.They}|{ab.friends}] {ab~crept} under one small {umbrella}, but the wind turned it inside out.",
            ),
        ),
        page(
            (
                "{t:night} {ab} could not find the path. Everything was wet and dark.",
                "Soon it was {t:night}, and {ab} had lost the path.",
            ),
            (
                '{a} {a~sat down} on a stone. "This is all my fault," {a.he} said {a:sad.ly}.',
                '{b} {b:sleepy}. "I cannot go on," {b.he} said. {a} {a:sad}.',
                "{b} {b~grumbled} that {b.his} feet were cold, and {a} {a:sad}.",
            ),
        ),
        page(
            (
                "But what was that? A {lantern} came swinging through the rain. It was {c.new}.",
                "Then a small light came closer and closer. A {lantern}! It was {c.new}.",
            ),
            (
                "{c.He} {c~waved}, and {ab} {ab:cheering}.",
                '"Who is out in such weather?" asked {c}. {a} {a:surprised}.',
                '"Over here!" called {ab}, {ab:waving.ing}.',
            ),
        ),
        page(
            (
                '"Come with me," said {c}, and lifted the {lantern}. "My cave is dry and warm."',
                "{c} held up the {lantern} and led the way to a little cave.",
            ),
            (
                "[{abc}|{abc.They}|{abc.friends}] {abc~walked} hand in hand, one careful step at a time.",
                "{b} {b~hurried} along behind, and {a} {a~hurried} along behind {b.him}.",
                "{a} {a:sleepy}, and {b} {b~ran} the last few steps.",
            ),
            optional=True,
        ),
        page(
            (
                "Inside, {c} made a fire and gave {a} and {b} a bowl of hot soup.",
                "In the cave there was a fire, and {c} put dry blankets round {ab}.",
            ),
            (
                "{ab.they} {ab~sat} close together. {b} {b~yawned}, and {a} {a~yawned} too.",
                '{a} {a~sat} by the flames, {a:sleepy.ing}. "You saved us," {a.he} said.',
                '{b} {b~sat down}. "I am sorry I was so cross," {b.he} said, and {a} {a~smiled}.',
            ),
        ),
        page(
            (
                "{t:nextday} the sky was blue, and {abc} stood on the very top of {the:mountain}.",
                "{t:nextday} the storm was over. {abc} {abc~climbed} to the very top of {the:mountain}.",
            ),
            (
                '"The top of the world!" said {a}. {a.He} {a~threw up HIS arms}, and {b} {b:surprised}.',
                "{b} {b:surprised}, for {b.he} could see the sea. {a} {a:cheering}.",
                "{a} {a~cheered}, {b} {b~cheered}, and {c} {c~waved} to the sun.",
            ),
        ),
        page(
            (
                "Then {ab} said goodbye and {ab~walked} back {to:HOME}.",
                "{t:dusk} {ab} were home again {at:HOME}, and everyone wanted to hear the story.",
            ),
            (
                '"Next time," said {a}, {a:happy,waving.ing}, "I will look at the clouds first."',
                '{b} {b:sleepy}. "It was a good storm," {b.he} said, "now that it is over."',
                'They put a {lantern} by the door. "For anyone who is lost," said {a}.',
            ),
        ),
    ),
)

PLOTS = (LOST_KITE, FIRST_FLIGHT, STORM)
