(() => {
  const leaves = [...document.querySelectorAll('.leaf')];
  const root = document.documentElement;
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  let shown = 0;
  let reading = null;

  // Turning pages: one leaf at a time, or all of them in a column.
  const turning = () => root.dataset.view === 'pages';
  const middle = leaf => { const box = leaf.getBoundingClientRect(); return (box.top + box.bottom) / 2; };
  const nearest = () => leaves.reduce((best, leaf, i) =>
    Math.abs(middle(leaf) - innerHeight / 2) < Math.abs(middle(leaves[best]) - innerHeight / 2) ? i : best, 0);
  const current = () => turning() ? shown : nearest();
  function show(target) {
    const next = Math.min(leaves.length - 1, Math.max(0, target));
    if (turning()) {
      leaves.forEach((leaf, i) => {
        leaf.hidden = i !== next;
        leaf.classList.remove('forward', 'back');
      });
      if (next !== shown) leaves[next].classList.add(next > shown ? 'forward' : 'back');
      scrollTo({ top: 0 });
    } else {
      leaves[next].scrollIntoView({ behavior: calm ? 'auto' : 'smooth', block: 'center' });
    }
    shown = next;
  }
  const rightToLeft = root.dir === 'rtl';
  addEventListener('keydown', event => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Escape' && reading) stop();
    const along = rightToLeft ? -1 : 1;
    const step = { ArrowRight: along, PageDown: 1, ArrowLeft: -along, PageUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(current() + step);
  });
  let touch = null;
  addEventListener('touchstart', event => { touch = event.changedTouches[0]; }, { passive: true });
  addEventListener('touchend', event => {
    const end = event.changedTouches[0];
    if (!turning() || !touch || Math.abs(end.clientX - touch.clientX) < 60
      || Math.abs(end.clientY - touch.clientY) > 60) return;
    show(current() + (end.clientX < touch.clientX === !rightToLeft ? 1 : -1));
  }, { passive: true });

  const tools = document.createElement('nav');
  tools.className = 'tools';
  tools.lang = 'en';
  tools.dir = 'ltr';
  tools.setAttribute('aria-label', 'Book');
  function tool(name, label, act) {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.tool = name;
    button.textContent = label;
    button.setAttribute('aria-pressed', 'false');
    button.addEventListener('click', () => act(button));
    tools.append(button);
    return button;
  }
  tool('view', 'Turn pages', button => {
    shown = nearest();
    root.dataset.view = turning() ? 'column' : 'pages';
    button.setAttribute('aria-pressed', String(turning()));
    leaves.forEach(leaf => { leaf.hidden = false; });
    for (const arrow of [back, forward]) arrow.hidden = !turning();
    show(shown);
  });
  const back = tool('back', 'Back', () => show(current() - 1));
  const forward = tool('forward', 'Next', () => show(current() + 1));
  for (const arrow of [back, forward]) { arrow.hidden = true; arrow.removeAttribute('aria-pressed'); }
  const prefersDark = () => root.dataset.style !== 'plain' && matchMedia('(prefers-color-scheme: dark)').matches;
  const dark = () => root.dataset.theme ? root.dataset.theme === 'dark' : prefersDark();
  const night = tool('theme', 'Dark', button => {
    root.dataset.theme = dark() ? 'light' : 'dark';
    button.setAttribute('aria-pressed', String(dark()));
  });
  night.setAttribute('aria-pressed', String(dark()));

  // Reading aloud: voices of this device alone, since others would send the words away.
  const speech = window.speechSynthesis;
  const voices = () => speech.getVoices().filter(voice => voice.localService);
  const reader = tool('read', 'Read aloud', () => reading ? stop() : read(current()));
  reader.hidden = true;
  const offer = () => { reader.hidden = !speech || voices().length === 0; };
  if (speech) { offer(); speech.addEventListener('voiceschanged', offer); }
  function mark(node, start, length) {
    if (!window.Highlight) return;
    const range = document.createRange();
    range.setStart(node, Math.min(start, node.length));
    range.setEnd(node, Math.min(start + length, node.length));
    CSS.highlights.set('spoken', new Highlight(range));
  }
  function stop() {
    reading = null;
    speech.cancel();
    if (window.Highlight) CSS.highlights.delete('spoken');
    reader.setAttribute('aria-pressed', 'false');
    reader.textContent = 'Read aloud';
    tools.classList.remove('reading');
  }
  function read(index) {
    const words = leaves[index] && leaves[index].querySelector('.words');
    if (!leaves[index]) return stop();
    if (!words || !words.firstChild) return index + 1 < leaves.length ? read(index + 1) : stop();
    const text = words.firstChild;
    const said = new SpeechSynthesisUtterance(text.data);
    const language = root.lang || 'en';
    said.lang = language;
    said.voice = voices().find(voice => voice.lang.toLowerCase().startsWith(language.split('-')[0].toLowerCase()))
      || voices()[0];
    said.addEventListener('boundary', event => {
      if (reading !== said || (event.name && event.name !== 'word')) return;
      const rest = /^\S+/.exec(text.data.slice(event.charIndex));
      mark(text, event.charIndex, event.charLength || (rest ? rest[0].length : 1));
    });
    said.addEventListener('end', () => { if (reading === said) read(index + 1); });
    said.addEventListener('error', () => { if (reading === said) stop(); });
    reading = said;
    reader.setAttribute('aria-pressed', 'true');
    reader.textContent = 'Stop reading';
    tools.classList.add('reading');
    if (index !== current()) show(index);
    speech.speak(said);
  }
  addEventListener('pagehide', () => speech && speech.cancel());
  document.body.prepend(tools);
})();
