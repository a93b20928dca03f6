// The page on which a card is given: it goes from this browser to Stripe, and we are told only that it is there.
window.addEventListener("load", () => {
  const form = document.getElementById("card-form");
  const error = document.getElementById("card-error");
  const button = form.querySelector("button");
  const stripe = window.Stripe(form.dataset.key);
  const elements = stripe.elements({ clientSecret: form.dataset.secret });
  elements.create("payment").mount("#card-element");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    error.textContent = "";
    const done = await stripe.confirmSetup({
      elements,
      redirect: "if_required",
      confirmParams: { return_url: window.location.href },
    });
    if (done.error) {
      error.textContent = done.error.message;
      button.disabled = false;
    } else {
      form.submit();
    }
  });
});
