// Loaded before the first paint: the theme follows the system until the switch was used.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("themeMode"); } catch { return null; } };
  const apply = () => {
    const mode = chosen();
    document.documentElement.classList.toggle("dark", mode ? mode === "dark" : system.matches);
    document.dispatchEvent(new CustomEvent("basecoat:themechange"));
  };
  apply();
  system.addEventListener("change", apply);
})();
