// What has to happen in the browser: the address follows the state, sliders follow their numbers.
window.dash_clientside = Object.assign({}, window.dash_clientside, {
  ridgeline: {
    screen: function () {
      window.setTimeout(function () {
        const here = document.querySelector(".nav-link-here");
        document.querySelectorAll(".nav-link").forEach(function (link) { link.removeAttribute("aria-current"); });
        if (here) {
          here.parentElement.scrollLeft = here.offsetLeft - 40;
          here.setAttribute("aria-current", "page");
          document.title = here.textContent + " - Ridgeline";
        }
      }, 400);
      return window.innerWidth < 720 ? "narrow" : "wide";
    },
    address: function (address, shown) {
      if (!address) { return window.dash_clientside.no_update; }
      const path = address.split("#")[0];
      const query = address.slice(address.lastIndexOf("?"));
      if (path === window.location.pathname && query !== window.location.search) {
        window.history.replaceState(window.history.state, "", path + query);
      }
      return "";
    },
    slide: function (exponent, value) {
      const none = window.dash_clientside.no_update;
      const from = window.dash_clientside.callback_context.triggered_id;
      if (!from) { return [none, none]; }
      if ("slider" in from) {
        const near = value ? Math.round(Math.log2(value)) : -1;
        return [none, near === exponent ? none : Math.pow(2, exponent)];
      }
      return [value ? Math.max(0, Math.round(Math.log2(value))) : 0, none];
    },
  },
});
