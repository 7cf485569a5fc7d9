// Behaviour by data attributes; no inline script anywhere. Charts read JSON the server rendered.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const toast = (config) => $("#toaster")?.toast?.(config);

  const actions = {
    sidebar: () => $("#sidebar").toggle(),
    theme: () => basecoat.theme.toggle(),
    palette: () => { $("#palette").showModal(); $("#palette input").focus(); },
    open: (button) => $(button.dataset.dialog).showModal(),
    close: (button) => button.closest("dialog").close(),
    submit: (button) => $(button.dataset.form).requestSubmit(),
    copy: async (button) => {
      try {
        await navigator.clipboard.writeText($(button.dataset.from).textContent.trim());
        toast({ category: "success", title: "Copied" });
      } catch {
        getSelection().selectAllChildren($(button.dataset.from));
        toast({ category: "info", title: "Selected: copy it with Ctrl C" });
      }
    },
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button) {
      event.preventDefault();
      actions[button.dataset.act](button);
    } else if (event.target.matches("dialog[data-light]")) {
      event.target.close();
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-change='submit']")) event.target.form.requestSubmit();
  });
  // The zone of this browser is offered beside those the server knows of.
  const offerZone = () => {
    const zones = $("[data-zones]");
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!zones || !own) return;
    const known = [...zones.options].find((option) => option.value === own);
    if (known) known.text = `${own} (this browser)`;
    else zones.add(new Option(`${own} (this browser)`, own));
  };
  document.addEventListener("keydown", (event) => {
    const id = event.target.id === "palette-input" && event.target.value.trim();
    if (event.key === "Enter" && /^[0-9a-f-]{32,36}$/i.test(id || "")) {
      event.preventDefault();
      event.stopPropagation();
      location.assign(`${event.target.dataset.requests}?q=${encodeURIComponent(id)}`);
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      actions.palette();
    }
  });
  // A dialog that showed a secret takes it away with itself: the page is asked for anew.
  document.addEventListener("close", (event) => {
    if ($("[data-reload]", event.target)) location.reload();
    else if (event.target.id === "modal") $("#modal-body").replaceChildren();
  }, true);
  document.addEventListener("htmx:after:swap", () => {
    const modal = $("#modal");
    if ($("#modal-body")?.childElementCount && !modal.open) modal.showModal();
    draw();
  });
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden && event.target.hasAttribute("data-poll")) event.preventDefault();
  });

  // --- charts: <div class="chart" data-chart="#id-of-the-json"><canvas>
  const charts = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shown = (unit, currency, digits) => {
    if (unit !== "money") return new Intl.NumberFormat("en", { notation: digits ? "standard" : "compact" });
    const wide = { minimumFractionDigits: 2, maximumFractionDigits: digits ?? 4 };
    return new Intl.NumberFormat("en", { style: "currency", currency, ...wide });
  };

  const options = (data) => {
    const text = colour("--muted-foreground");
    const axis = shown(data.unit, data.currency);
    const tip = shown(data.unit, data.currency, 6);
    return {
      responsive: true,
      maintainAspectRatio: false,
      animation: false,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: { stacked: true, grid: { display: false }, border: { color: colour("--border") }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 18 } },
        y: { stacked: true, beginAtZero: true, border: { display: false }, grid: { color: colour("--border") }, ticks: { color: text, maxTicksLimit: 5, padding: 8, callback: (value) => axis.format(value) } },
      },
      plugins: {
        legend: { display: false },
        tooltip: {
          backgroundColor: colour("--popover"), titleColor: colour("--popover-foreground"),
          bodyColor: colour("--popover-foreground"), borderColor: colour("--border"), borderWidth: 1,
          padding: 10, boxWidth: 8, boxHeight: 8, boxPadding: 5, cornerRadius: 8, usePointStyle: false,
          filter: (item) => item.raw !== 0,
          callbacks: { label: (item) => ` ${item.dataset.label}  ${tip.format(item.raw)}` },
        },
      },
    };
  };

  const draw = (force = false) => document.querySelectorAll("[data-chart]").forEach((holder) => {
    const source = $(holder.dataset.chart)?.textContent;
    const known = charts.get(holder);
    if (!source || (!force && known?.source === source)) return;
    const data = JSON.parse(source);
    known?.chart.destroy();
    Chart.defaults.font.family = "Inter, sans-serif";
    Chart.defaults.font.size = 12;
    const chart = new Chart($("canvas", holder), {
      type: "bar",
      data: {
        labels: data.labels,
        datasets: data.series.map((series) => ({
          label: series.label, data: series.values.map((value) => value / 10 ** data.scale), backgroundColor: colour(`--chart-${series.colour}`),
          borderRadius: 3, borderSkipped: "start", maxBarThickness: 34, categoryPercentage: 0.82, barPercentage: 0.9,
        })),
      },
      options: options(data),
    });
    charts.set(holder, { chart, source });
  });

  document.addEventListener("basecoat:themechange", () => draw(true));
  document.addEventListener("DOMContentLoaded", () => { offerZone(); draw(); });
})();
