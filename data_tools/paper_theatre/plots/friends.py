"""Stories of being alone, quarrelling and making up."""

from data_tools.paper_theatre.plots.plot import Plot, opening, page

PARTY = Plot(
    name="a party for a lonely friend",
    titles=("A Party for {a}", "Nobody Knows My Name", "The Surprise", "{a} Is Not Alone"),
    cast="abc",
    values={
        "HOME": ("village", "pond", "forest"),
        "PARTY": ("garden", "meadow", "beach"),
        "FOOD": ("lemonade", "pancakes", "honey bread", "jam tarts", "plum pie"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} was new here and knew nobody. {a.He} {a~sat} at the window and {a:sad}.",
                "{a.He} had no one to play with, and {a.he} {a:sad}.",
                "Everyone else had a friend. {a} {a~sat down} on a step and {a:sad}.",
            ),
        ),
        page(
            (
                "{a} rolled a {ball} to the left. Nobody rolled it back, so {a.he} {a~ran} after it.",
                "{a} threw a {ball} into the air and caught it again. Ten times, twenty times, all alone.",
                "{a} had a {ball}, but a ball is no fun for one.",
            ),
            (
                '"I wish somebody would say good morning to me," {a.he} said {a:sad.ly}.',
                "{a.He} {a:sad}, and put it away.",
                "Tomorrow was {a.his} birthday, and nobody knew. {a.He} {a:sad}.",
            ),
        ),
        page(
            (
                "Behind the hedge was {b.new}.",
                "Over the fence looked {b.new}.",
            ),
            (
                "{b} had seen it all, and {b.he} {b:sad} for {a}. Then {b.he} had an idea.",
                '{b.He} {b~waved}, but {a} did not see it. "I must do something," thought {b}.',
                '{b} saw {a} with {a.his} head down. "This will not do at all," {b.he} said, {b:angry.ing}.',
            ),
        ),
        page(
            (
                "{b} {b~ran} {to:PARTY}. There lived {c.new}.",
                "{b} {b~hurried} {to:PARTY} to find {c.new}.",
            ),
            (
                '"We must make a party," said {b}, "and it must be a surprise!" {c} {c:cheering}.',
                '{c} {c~sat} in the sun, {c:sleepy.ing}. "Wake up!" said {b}. "We have a party to make!"',
                '"A party? For someone I do not know?" {c} {c:angry,surprised}. "That is why," said {b}.',
            ),
        ),
        page(
            (
                "[{bc}|{bc.They}|{bc.friends}] worked hard {at:PARTY}. {b} blew up a {balloon}, and {c} made {FOOD}.",
                "First {bc} made {FOOD}. Then {c} hung a big {balloon} on a branch.",
            ),
            (
                "Pop! It burst, and {b} {b~sat down} in surprise. {c} {c~laughed}.",
                '{c} {c~yawned}. "Parties are hard work," {c.he} said.',
                '"There must be enough for everyone!" said {b}. {b.He} {b~ran} back and forth.',
            ),
        ),
        page(
            (
                "Then {c} baked a {cake} as high as a chair, and {b} wrote a name on it.",
                "Last of all came the {cake}. {c} carried it out with very small steps.",
            ),
            (
                '{b} wanted to lick it. "Not yet!" said {c}, {c:angry.ing}.',
                "[{bc}|{bc.They}|{bc.friends}] {bc~sat down} and looked at it, {bc:happy,waving.ing}.",
                '{b} {b~jumped for joy}. "{a} will be so surprised!" {b.he} said.',
            ),
            optional=True,
        ),
        page(
            (
                "{t:dusk} {b} {b~walked} {to:HOME} and knocked at the door of {a}.",
                "{t:dusk} {b} {b~ran} back {to:HOME}. Knock, knock, knock!",
            ),
            (
                '{a} {a:surprised}. "Somebody is knocking at my door!" {a.he} said. {b} {b~waved}.',
                '{a} {a:sleepy}, for {a.he} had gone to bed. "Come quickly!" said {b}.',
                '"Will you come with me?" asked {b}, {b:waving.ing}. {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "{b} led {a} by the hand {to:PARTY}. There was a {cake}, there was a {balloon}, and there was {c}.",
                "[{ab}|{ab.They}|{ab.friends}] {ab~walked} {to:PARTY}. There was a {balloon} on every branch, and there was a {cake}.",
            ),
            (
                '"Surprise!" called {c}, {c:cheering.ing}. {a} {a~gasped}.',
                '{a} {a~stared}. "Who is it for?" {a.he} asked. "For you!" said {c}, {c:happy,waving.ing}.',
                '"Happy birthday!" {bc} {bc:cheering}. {a} {a:surprised}.',
            ),
        ),
        page(
            (
                "At first {a} could not say a word. {a.He} {a~had tears in HIS eyes}.",
                "{a} opened {a.his} mouth, and closed it, and opened it again.",
            ),
            (
                '"Do you not like it?" asked {c}. {a} {a~laughed}. "I love it!"',
                '"Are you sad?" asked {b}. "No," said {a}, {a:happy,waving.ing}. "I am full up to the top."',
                "{c} {c~sat down} beside {a.him} and held {a.his} hand. {a} {a:happy}.",
            ),
            optional=True,
        ),
        page(
            (
                "[{abc}|{abc.They}|{abc.friends}] ate {FOOD} and sang every song under the sun.",
                "{t:night} there was music {at:PARTY}, and {abc} {abc~danced} under the lights.",
            ),
            (
                "{b} {b~skipped}, {c} {c~danced}, and {a} {a~laughed} until {a.his} tummy hurt.",
                "{a} {a:cheering}, {b} {b~sat down} to catch {b.his} breath, and {c} {c~yawned}.",
            ),
        ),
        page(
            (
                "{t:nextday} {a} went out of the house {at:HOME}, and there were {bc}.",
                "{t:nextday} somebody called {a} from the street. {bc} were {at:HOME}!",
            ),
            (
                '"Good morning!" {bc} {bc~waved}. "Did you bring the {ball}?" {a} {a:cheering}.',
                '[{bc}|{bc.They}|{bc.friends}] {bc~waved}. "Good morning, {a}!" It was the finest thing {a} had ever heard.',
                "{a} threw the {ball}, and this time it came back. {b} {b:happy}, {c} {c:cheering}.",
            ),
        ),
    ),
)

QUARREL = Plot(
    name="making up after a quarrel",
    titles=("The Big Quarrel", "Sorry Is a Small Word", "{a} and {b} Are Friends Again", "Mine! Mine!"),
    cast="ab",
    values={
        "HERE": ("meadow", "garden", "beach", "snowfield"),
        "AWAY": ("forest", "pond", "mountain"),
        "HOME": ("bedroom", "kitchen"),
        "TOY": ("ball", "drum", "balloon", "kite", "boat", "book"),
    },
    beats=(
        page(
            opening("oneday", "HERE"),
            (
                "{a.He} was looking for {a.his} very best friend, and {a.he} {a~ran} left and right.",
                "{a.He} {a~sat} there, and {a.he} {a:happy}, for {a.his} best friend was coming.",
                "{a.He} {a~waved}, for {a.he} could see {a.his} best friend from far away.",
            ),
        ),
        page(
            (
                "It was {b.new}.",
                "The best friend was {b.new}.",
            ),
            (
                "[{ab}|{ab.They}|{ab.friends}] found a {TOY} on the ground, and {ab.they} {ab:cheering}.",
                "{b} {b~ran} to {a.him}, {b:happy,waving.ing}. At {ab.their} feet lay a new {TOY}.",
            ),
        ),
        page(
            (
                '"It is mine!" said {a}. "I saw the {TOY} first!"',
                "{a} held the {TOY} on one side, and {b} held it on the other.",
            ),
            (
                '"No, mine!" said {b}, {b:angry.ing}. {a} {a:angry}.',
                "{b} {b:angry}, and {a} {a:angry}. Nobody would let go.",
                '"Give it to me!" {b} {b~stamped HIS foot}. {a} {a~scowled}.',
            ),
        ),
        page(
            (
                "Then {b} pulled and {a} pulled, and the {TOY} flew into a puddle. Splash!",
                "[{ab}|{ab.They}|{ab.friends}] pulled so hard that the {TOY} flew into the air and rolled away.",
            ),
            (
                '"I never want to see you again!" said {a} {a:angry.ly}. {b} {b~frowned}.',
                '"You are not my friend," said {b}, {b:angry.ing}. {a} {a:surprised}.',
                '{b} {b:angry}. {a} {a~huffed}. "I will never speak to you again!" {a.he} said.',
            ),
        ),
        page(
            (
                "{a} {a~marched} {to:AWAY} and did not look back.",
                "{a} {a~ran} off {to:AWAY}, faster and faster.",
            ),
            (
                '"I can play by myself," {a.he} {a~grumbled}.',
                '"Good riddance!" {a.he} said, and {a.he} {a:angry}. But it was very quiet there.',
                "{a.He} threw stones, one after the other, and {a.he} {a:angry}.",
            ),
        ),
        page(
            (
                "{b} went home and slammed the door. {b.He} {b~sat down} {at:HOME}.",
                "{b} {b~ran} home and {b~sat down} {at:HOME} with {b.his} arms crossed.",
            ),
            (
                "{b.He} {b:angry}, then {b.he} {b:sad}. The house felt much too big.",
                '"I do not care," {b.he} said. But {b.he} {b:sad}.',
                "{b.He} counted to ten, and then to a hundred, and {b.he} still {b:angry}.",
            ),
        ),
        page(
            (
                "{t:dusk} {a} {a~sat} alone {at:AWAY}. {a.He} saw something funny and turned to tell {b}.",
                "{t:dusk} a green beetle fell on its back, and {a} {a~laughed}. {a.He} turned to show {b}.",
            ),
            (
                "But nobody was there. {a} {a:sad}.",
                'But no one was beside {a.him}. "Oh," said {a}, {a:sad.ing}.',
            ),
        ),
        page(
            (
                "{t:night} {b} could not sleep. {b.He} {b~sat} {at:HOME} and thought of {a}.",
                "{t:night} {b} {b~walked} up and down {at:HOME}, {b:sleepy.ing}.",
            ),
            (
                '"Sorry is such a small word," {b.he} said {b:sad.ly}. "Why is it so hard to say?"',
                "{b.He} {b:sleepy}, and still {b.he} could not close {b.his} eyes.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} {a} {a~ran} {to:HERE}. There was {b}, with the {TOY} in {b.his} arms.",
                "{t:nextday} {b} {b~walked} {to:HERE} with the {TOY}, all clean and dry. There was {a}.",
            ),
            (
                '"I am sorry," said {a}. "I am sorry," said {b}. It came out at the same time.',
                '{b} {b~waved} a little. "I am sorry," {b.he} said. "You can have it."',
                '"I shouted at you," said {a}, {a:sad.ing}. "I shouted louder," said {b}.',
            ),
        ),
        page(
            (
                "[{ab}|{ab.They}|{ab.friends}] looked at each other. Then {ab.they} {ab~laughed}.",
                "{a} {a~giggled}, and then {b} {b~giggled}.",
            ),
            (
                '"You take the {TOY} on Mondays," said {a}, "and I take it on Tuesdays." {b} {b:cheering}.',
                '"It is no fun without you," said {b}. {a} {a~jumped for joy}.',
                "{ab.they} {ab~skipped} round the {TOY} until {ab.they} fell down.",
            ),
        ),
        page(
            (
                "{t:day} {ab} shared the {TOY}, turn by turn.",
                "{t:dusk} {ab} {ab~sat} side by side {at:HERE}, beside the {TOY}.",
            ),
            (
                '"Shall we quarrel again tomorrow?" asked {b}, {b:sleepy.ing}. "Better not," said {a}.',
                '{a} {a~yawned}. "It is so nice to be friends," {a.he} said, and {b} {b~yawned} too.',
                '{b} {b:sleepy}. "Sorry is a small word," {b.he} said, "but it is a good one."',
            ),
        ),
    ),
)

GRUMPY = Plot(
    name="the grumpy neighbour",
    titles=("The Grumpy Neighbour", "Who Lives Behind the Hedge?", "{c} Never Smiles", "A Basket for {c}"),
    cast="abc",
    values={
        "HOME": ("village", "garden", "meadow"),
        "DARK": ("forest", "mountain", "snowfield"),
        "GIFT": ("warm buns", "blueberry jam", "soup", "pears", "ginger biscuits"),
    },
    beats=(
        page(
            opening("oneday", "HOME"),
            (
                "{a.He} {a~ran} after a {ball}, round and round.",
                "{a.He} had a bouncing {ball}, and {a.he} {a:cheering} each time it bounced.",
            ),
        ),
        page(
            (
                "With {a.him} played {b.new}.",
                "{a.He} played with {b.new}.",
            ),
            (
                "{b} kicked the {ball} too hard, and over the hedge it flew. {a} {a:surprised}.",
                '{b} {b~waved}. "Catch!" But the {ball} flew over the hedge and was gone.',
            ),
        ),
        page(
            (
                "Behind the hedge lived {c.new}.",
                "Then the hedge shook, and out came {c.new}.",
            ),
            (
                '{c} {c:angry}. "My roses! Go away!" {c.he} shouted. {b} {b~ran} back to {a}.',
                '"Who threw this at my head?" {c} {c:angry}. {a} {a:surprised}.',
                '"No noise! No games!" {c} {c~stamped HIS foot}, and {b} {b:sad}.',
            ),
        ),
        page(
            (
                '[{ab}|{ab.They}|{ab.friends}] {ab~sat down} under a tree. "Why is {c} always so cross?" asked {b}.',
                "[{ab}|{ab.They}|{ab.friends}] {ab~sat} on the wall and thought about {c}.",
            ),
            (
                '{a} {a:sad}. "Maybe nobody ever visits," {a.he} said.',
                '"I am afraid of that face," said {b}, {b:sad.ing}.',
                '{b} {b:angry}. "I want my ball," {b.he} said.',
            ),
        ),
        page(
            (
                "{t:nextday} {a} filled a {basket} with {GIFT}.",
                "{t:nextday} {a} took {GIFT} out of the cupboard and put it in a {basket}.",
            ),
            (
                '"For {c}?" {b} {b:surprised}. "For {c}," said {a}, {a:happy,waving.ing}.',
                '{b} {b:angry}. "Not for that old grump!" {b.he} said. But {a} only {a~smiled}.',
                '"You are very brave," said {b}, {b:surprised.ing}. {a} {a~waved}. "Come along!"',
            ),
        ),
        page(
            (
                "But the little house was empty. {ab} saw big footprints that led {to:DARK}.",
                "Nobody was at home. {ab} {ab~walked} along the footprints {to:DARK}.",
            ),
            (
                '"Let us go back," said {b}, {b:sleepy.ing}. But {a} {a~hurried} on with the {basket}.',
                "{b} {b~tiptoed} behind {a.him}. {a} {a~marched} ahead with the {basket}.",
            ),
        ),
        page(
            (
                "{t:dusk} {ab} found {c}. {c.He} {c~sat} on the ground and held {c.his} foot.",
                "{t:dusk}, {at:DARK}, {ab} heard a sound. {c} {c~sat} there, all alone.",
            ),
            (
                '"I fell," said {c}, {c:sad.ing}. "And nobody ever comes by here."',
                '"Go away," said {c}. But {c.he} {c~had tears in HIS eyes}.',
                '"My foot hurts," said {c} {c:sad.ly}. {b} {b:surprised}.',
            ),
        ),
        page(
            (
                "{a} gave {c} the {basket}. {c} looked inside and {c:surprised}.",
                '"This is for you," said {a}, and held out the {basket}. {c} {c:surprised}.',
            ),
            (
                '"{GIFT}?" {c.he} whispered. "For me?" {b} {b~sat down} beside {c.him}.',
                "{b} tied up the foot with a ribbon. {b.He} was not afraid now. {b.He} {b:happy}.",
            ),
        ),
        page(
            (
                "{t:night} {ab} helped {c} home. {abc} {abc~walked} slowly, arm in arm.",
                "{t:night} {c} {c~walked} home, with {a} on the left and {b} on the right.",
            ),
            (
                '{b} {b:sleepy}, and {c} {c~yawned}. "Not far now," said {a}.',
                '"I was rude to you," said {c}, {c:sad.ing}. "A little," said {b}.',
                "{a} {a~waved} at the moon, and for the first time {c} {c~laughed}.",
            ),
            optional=True,
        ),
        page(
            (
                "{t:nextday} something bounced over the hedge {at:HOME}. It was the {ball}!",
                "{t:nextday} {ab} were {at:HOME} when the {ball} came flying back.",
            ),
            (
                '"Will you teach me to play?" asked {c}, {c:waving.ing}. {ab} {ab:cheering}.',
                "{c} looked over the hedge and {c~waved}. {a} {a:surprised}, and {b} {b~laughed}.",
            ),
        ),
        page(
            (
                "{t:day} {abc} played together, and {c} kicked the {ball} harder than anyone.",
                "Now the {ball} belonged to three. {abc} {abc~ran} after it until {abc.they} were out of breath.",
            ),
            (
                '"Mind my roses!" said {c}. But {c.he} {c~laughed} when {c.he} said it.',
                '{a} {a:cheering}. "Goal!" {c} {c~frowned}, and then {c.he} {c~grinned}.',
                "{b} {b~sat down}, {b:sleepy.ing}, but {c} wanted one more game.",
            ),
        ),
    ),
)

PLOTS = (PARTY, QUARREL, GRUMPY)
