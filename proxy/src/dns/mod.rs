//! Finding a domain's servers: resolver, SRV order, connecting; and the view for servers inside.
