"""Names of the cast, each with its one pronoun.

No name is also a word that may begin a sentence, so that a capitalised name is always a character.
"""

from __future__ import annotations

_SHE = """
Ada Adele Agnes Alba Alma Amelie Anna Anouk Asta Astrid Aya Beatrix Bella Bettina Birgit Bonnie Brenda Cara Carla
Cecily Celia Chloe Clara Cleo Cora Dagny Dalia Daphne Della Dora Dorothy Edith Effie Elena Elisa Ella Elsie Emilia
Emma Erin Esme Estelle Etta Eva Fatima Fiona Flora Frida Gemma Gerda Gilda Greta Gwen Hanna Hattie Hedda Heidi Helga
Ida Ilse Ingrid Irma Isla Jana Jemima Josie Juna Kaja Katya Kira Lena Lila Lily Linnea Lotta Lucy Luna Mabel Maja
Marta Matilda Maya Mia Mila Mimi Minna Molly Nadia Nell Nina Nora Olga Paula Petra Polly Priya Rita Romy Rosa Runa
Sara Selma Signe Sofia Stella Suki Tess Thea Tilda Tilly Ursula Vera Viola Wanda Wilma Yara Yuki Zelda Zoe
"""
_HE = """
Adam Alfie Amos Anton Archie Arlo Arne Arthur Asher Axel Barnaby Basil Benno Bertie Bjorn Boris Bruno Caspar Cedric
Chester Clem Conrad Cosmo Cyril Dario Dexter Dmitri Dougal Dylan Edgar Edwin Elias Emil Enzo Erik Ernest Ezra Fabio
Felix Ferdy Finn Floyd Franz Fritz Gabe Georg Gino Gus Hamish Hank Harald Harvey Hector Henry Hugo Humphrey Igor Ivan
Ivo Jasper Jonas Jorge Julian Kasper Klaus Lars Leo Leon Linus Lorenzo Louis Ludo Lukas Magnus Marcel Mario Mats
Max Milo Mischa Monty Morris Nico Niels Noah Oliver Olaf Omar Orson Oscar Otis Otto Pablo Percy Peter Pip Quentin
Ralph Rasmus Rico Rolf Rory Rufus Rupert Samir Sebastian Silas Simon Sven Tariq Teddy Theo Toby Tom Tomas Ulf Victor
Viggo Waldo Walter Wesley Wilbur Yuri Zeke Zico
"""
_HELD_OUT_SHE = "Agatha Bibi Camille Doris Elvira Freya Ginny Harriet Imogen Juno Leonie Marnie Nellie Odette Saskia"
_HELD_OUT_HE = "Albert Bartek Corin Dante Elmer Fergus Gilbert Horace Ignatz Jakob Kofi Lionel Mungo Ned Osvald Ravi"

SHE = tuple(_SHE.split())
HE = tuple(_HE.split())
HELD_OUT_SHE = tuple(_HELD_OUT_SHE.split())
HELD_OUT_HE = tuple(_HELD_OUT_HE.split())

PRONOUNS: dict[str, str] = dict.fromkeys(SHE + HELD_OUT_SHE, "she") | dict.fromkeys(HE + HELD_OUT_HE, "he")


def names_of(split: str, pronoun: str) -> tuple[str, ...]:
    """The names that a split may use for a pronoun ("she" or "he")."""
    table = {
        ("train", "she"): SHE,
        ("train", "he"): HE,
        ("heldout", "she"): HELD_OUT_SHE,
        ("heldout", "he"): HELD_OUT_HE,
    }
    if (split, pronoun) not in table:
        raise ValueError(f"no names for split {split!r} and pronoun {pronoun!r}: use train or heldout, she or he")
    return table[split, pronoun]
