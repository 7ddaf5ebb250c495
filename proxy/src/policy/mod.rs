//! Partner, access, content, contact: what may pass, and what each refusal says.
