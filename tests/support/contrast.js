// The elements whose text stands out less than 4.5 to 1 from what is behind it (WCAG 2.1, AA), as a list of texts.
(() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map((part) => part / 255)
      .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "transparent" && !/, 0\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const speaks = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!speaks || !element.getClientRects().length || element.closest("noscript")) continue;
    const style = getComputedStyle(element);
    const colour = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [light, dark] = [luminance(colour), luminance(ground(element))].sort((a, b) => b - a);
    if ((light + 0.05) / (dark + 0.05) < 4.5) poor.add(`${element.tagName} ${colour} on ${ground(element)}: ${element.textContent}`);
  }
  return [...poor];
})()
