// Every two seconds the page's main part is fetched again and put in place of the old one.
// Nothing happens while text is selected or the tab is hidden.
setInterval(async () => {
  if (document.hidden || String(getSelection()) !== "") return;
  try {
    const text = await (await fetch(location.href)).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    if (fresh) document.querySelector("main").replaceWith(fresh);
  } catch { /* the shop has stopped; the page stays as it is */ }
}, 2000);
